package spool_test

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// TestNoRoom: while the disk is nearly full nothing is accepted, and the spool goes on working.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := journal.Open(journal.Options{Dir: dir + "/journal", MinFree: 1 << 60})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- j.Run(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-ran, j.Close()); err != nil {
			t.Error(err)
		}
	}()
	s, err := spool.Open(ctx, spool.Options{Dir: dir, Journal: j})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	m := &spool.Message{
		ID: message.NewIDs(rand.Reader).New(now), Tenant: "t", Received: now,
		Recipients: []smtp.Recipient{{Path: smtp.Path{Local: "a", Domain: "one.test"}}},
		Queues:     []spool.QueueKey{{Tenant: "t", Domain: "one.test"}},
	}
	if err := s.Accept(ctx, m, smtp.BodyOf([]byte("\r\nhi\r\n"))); !errors.Is(err, journal.ErrFull) {
		t.Errorf("accepted with %v", err)
	}
	if st := s.Stats(); st.Accepted != 0 || s.Err() != nil {
		t.Errorf("%+v, %v", st, s.Err())
	}
}
