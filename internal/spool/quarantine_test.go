package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// contents reads a whole file.
func contents(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func replace(t *testing.T, fs vfs.FS, name string, data []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// segmentWith returns the journal's file that holds some words.
func segmentWith(t *testing.T, fs vfs.FS, words string) (name string, at int) {
	t.Helper()
	names, err := fs.List("/journal")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		name = fs.PathJoin("/journal", name)
		if at := bytes.Index(contents(t, fs, name), []byte(words)); at >= 0 && strings.HasSuffix(name, ".seg") {
			return name, at
		}
	}
	t.Fatalf("no segment has %q", words)
	return "", 0
}

// bodyWith returns a body of about 1.5 kB that begins with some words.
func bodyWith(words string) *smtp.Body {
	return smtp.BodyOf([]byte("Subject: x\r\n\r\n" + words + "\r\n" + strings.Repeat("some text\r\n", 130)))
}

// TestQuarantine spoils the journal in ways that disks do, in the middle of mail. The messages that are touched are
// held and named, before anyone tries to deliver them; all others go on; nothing is deleted; and the damage is known
// to this process and the next.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, fs vfs.FS){
		"flipped bit in a body": func(t *testing.T, fs vfs.FS) {
			name, at := segmentWith(t, fs, "body-of-7")
			data := contents(t, fs, name)
			data[at] ^= 4
			replace(t, fs, name, data)
		},
		"zeroed block": func(t *testing.T, fs vfs.FS) {
			name, at := segmentWith(t, fs, "body-of-7")
			data := contents(t, fs, name)
			clear(data[at : at+64])
			replace(t, fs, name, data)
		},
		"zeroed envelope": func(t *testing.T, fs vfs.FS) {
			name, at := segmentWith(t, fs, "subject-of-7")
			data := contents(t, fs, name)
			clear(data[at : at+6])
			replace(t, fs, name, data)
		},
		"segment cut off": func(t *testing.T, fs vfs.FS) {
			name, at := segmentWith(t, fs, "body-of-7")
			replace(t, fs, name, contents(t, fs, name)[:at])
		},
		"segment gone": func(t *testing.T, fs vfs.FS) {
			name, _ := segmentWith(t, fs, "body-of-7")
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := vfs.NewMem()
			r := newRig(t, fs, func(r *rig) { r.segment = 16 << 10 })
			var ids []message.ID
			due := time.Now().Add(-time.Second)
			for i := range 20 {
				m := r.message("a.example")
				m.Subject = fmt.Sprintf("subject-of-%d-", i)
				body := bodyWith(fmt.Sprintf("body-of-%d-", i))
				m.Size = body.Size()
				if err := r.spool.Accept(context.Background(), m, body); err != nil {
					t.Fatal(err)
				}
				body.Release()
				r.settle(r.taken(m), deferred(due))
				ids = append(ids, m.ID)
			}
			r.checkpoint()
			if err := r.spool.lastCheckpoint(); err != nil {
				t.Fatal(err)
			}
			r.close()
			spoil(t, fs)
			for range 2 { // the process that finds it, and the next
				r.open()
				ran := make(chan error)
				ctx, stop := context.WithCancel(context.Background())
				go func() { ran <- r.spool.Run(ctx) }()
				named := func() bool { // all that cannot be read is held, and known to this life
					n := 0
					for _, id := range ids {
						e := r.one(Filter{Messages: []message.ID{id}})
						body, err := r.spool.Body(ctx, e.Message)
						if err == nil {
							body.Release()
							continue
						}
						if n++; e.State != Held {
							return false
						}
					}
					return n > 0 && r.spool.Damage().Quarantined == n
				}
				for deadline := time.Now().Add(20 * time.Second); !named(); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("not all is quarantined: %+v", r.spool.Damage())
					}
				}
				held, readable := 0, 0
				for i, id := range ids {
					e := r.one(Filter{Messages: []message.ID{id}})
					body, err := r.spool.Body(context.Background(), e.Message)
					if err == nil {
						body.Release()
						readable++
						if e.State != Waiting {
							t.Errorf("message %d can be read and is %s", i, e.State)
						}
						continue
					}
					held++
					if !errors.Is(err, ErrUnreadable) || e.State != Held || !strings.HasPrefix(e.HoldReason, quarantinePrefix) {
						t.Errorf("message %d: %v, %s: %s", i, err, e.State, e.HoldReason)
					}
				}
				d := r.spool.Damage()
				if held != d.Quarantined || held == 0 || readable < 10 || d.Stretches+len(d.Lost) == 0 {
					t.Errorf("%d held, %d readable, %+v", held, readable, d)
				}
				stop()
				if err := <-ran; err != nil {
					t.Error(err)
				}
				r.close()
			}
			r.open()
			for _, e := range r.claim("a.example", time.Now(), 100) { // what can be delivered is
				r.settle([]*Entry{e}, delivered())
			}
			if n, err := r.spool.Finish(context.Background(), Filter{States: []State{Held}}, Result{Outcome: Cancelled}); n == 0 || err != nil {
				t.Error(n, err)
			}
			r.checkpoint()
			if err := r.spool.reclaim(context.Background()); err != nil {
				t.Error(err)
			}
			if st := r.sums(); st.Queued() != 0 {
				t.Errorf("%+v", st)
			}
			if name == "segment gone" {
				return
			}
			names, err := fs.List("/journal")
			if err != nil || !strings.Contains(strings.Join(names, " "), ".damaged") && r.spool.Damage().Stretches == 0 {
				t.Errorf("nothing is kept of the damage: %v, %v, %+v", names, err, r.spool.Damage())
			}
		})
	}
}
