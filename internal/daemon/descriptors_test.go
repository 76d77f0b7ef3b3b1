package daemon

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"
)

// C-2: clients get no more than their share, wait for it, and get it at once when it is free.
func TestDescriptorsAreShared(t *testing.T) {
	t.Parallel()
	for limit, want := range map[uint64]int{512: 384, 1024: 768, 20000: 17500, 8: 6, 0: 0, 1 << 30: 0} {
		if d := newDescriptors(limit, nil); cap(d.slots) != want {
			t.Errorf("of %d files clients may have %d, want %d", limit, cap(d.slots), want)
		}
	}
	d := newDescriptors(8, slog.New(slog.DiscardHandler))
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := d.share(plain)
	accepted := make(chan net.Conn, 20)
	var loop sync.WaitGroup
	loop.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			accepted <- c
		}
	})
	var clients []net.Conn
	for range 10 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	var sessions []net.Conn
	for range 6 {
		sessions = append(sessions, <-accepted)
	}
	select {
	case <-accepted:
		t.Error("a seventh is accepted")
	case <-time.After(50 * time.Millisecond):
	}
	for range 2 {
		_ = sessions[0].Close() // twice: the second one gives nothing back
	}
	sessions = append(sessions, <-accepted)
	select {
	case <-accepted:
		t.Error("a seventh is accepted after one has left")
	case <-time.After(50 * time.Millisecond):
	}
	if _, ok := sessions[1].(interface{ CloseWrite() error }); !ok {
		t.Error("half of a connection cannot be closed")
	}
	if err := l.Close(); err != nil { // with Accept waiting
		t.Error(err)
	}
	loop.Wait()
	for _, c := range append(sessions, clients...) {
		_ = c.Close()
	}
	if len(d.slots) != 0 {
		t.Errorf("%d slots are held", len(d.slots))
	}
}
