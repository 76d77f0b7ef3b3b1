package daemon

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// descriptors keeps clients from using up the files that the process may open: deliveries, the journal and the
// administrators need some too. When sessions hold all but the reserve, no connection is accepted until one of them ends;
// clients wait in the system's queue meanwhile.
type descriptors struct {
	slots chan struct{} // one for each session that may be open; nil: nobody knows a bound
	log   *slog.Logger
	told  atomic.Int64 // Unix seconds
}

// mostSlots is where a bound on sessions stops to matter.
const mostSlots = 1 << 20

// newDescriptors parts limit, the files that the process may open; 0 if nobody knows.
func newDescriptors(limit uint64, log *slog.Logger) *descriptors {
	d := &descriptors{log: log}
	if limit == 0 || limit > mostSlots {
		return d
	}
	// An eighth, but not less than what a small server needs, where there is that much.
	reserve := max(limit/8, min(256, limit/4))
	d.slots = make(chan struct{}, limit-reserve)
	return d
}

// share returns l with sessions that hold slots.
func (d *descriptors) share(l net.Listener) net.Listener {
	if d.slots == nil {
		return l
	}
	return &sharedListener{Listener: l, all: d, done: make(chan struct{})}
}

// full notes, once a minute, that clients have to wait.
func (d *descriptors) full(l net.Listener) {
	now, told := time.Now().Unix(), d.told.Load()
	if now-told >= 60 || now < told {
		if d.told.CompareAndSwap(told, now) {
			d.log.Warn("sessions hold all files that they may, new clients wait", "address", l.Addr().String(),
				"sessions", cap(d.slots), "advice", "raise the limit of open files (ulimit -n, LimitNOFILE)")
		}
	}
}

type sharedListener struct {
	net.Listener
	all  *descriptors
	once sync.Once
	done chan struct{}
}

// Accept waits for a slot before it takes a connection.
func (l *sharedListener) Accept() (net.Conn, error) {
	select {
	case l.all.slots <- struct{}{}:
	default:
		l.all.full(l)
		select {
		case l.all.slots <- struct{}{}:
		case <-l.done:
			return nil, net.ErrClosed
		}
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.all.slots
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok { // nobody else listens; it is not counted
		<-l.all.slots
		return c, nil
	}
	return &sharedConn{TCPConn: tcp, all: l.all}, nil
}

// Close ends a wait in Accept too.
func (l *sharedListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// sharedConn is a connection that holds a slot until it is closed.
type sharedConn struct {
	*net.TCPConn
	all  *descriptors
	once sync.Once
}

// Close gives the slot back.
func (c *sharedConn) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() { <-c.all.slots })
	return err
}
