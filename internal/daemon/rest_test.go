package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
	"github.com/godwit-mta/godwit/internal/daemon/daemontest"
	"github.com/godwit-mta/godwit/internal/seal"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

const restZones = "ok.test. IN MX 10 mx.ok.test.\nmx.ok.test. IN A 127.0.2.1\n" +
	"busy.test. IN MX 10 mx.busy.test.\nmx.busy.test. IN A 127.0.2.2\n"

// keyFile writes a new master key, outside of the data directory.
func keyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "master.key")
	if err := os.WriteFile(path, []byte(seal.NewMaster()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// files reads a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		p, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a database tidies up
		}
		name, _ := filepath.Rel(dir, path)
		all[name] = string(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func noneHolds(t *testing.T, dir string, texts ...string) {
	t.Helper()
	for name, content := range files(t, dir) {
		for _, text := range texts {
			if strings.Contains(content, text) {
				t.Errorf("%s holds %q", name, text)
			}
		}
	}
}

// TestRest is G-REST: with encryption on, nothing of a message is found in the data directory, running or stopped, and all of it
// comes through restarts and key rotations under load.
func TestRest(t *testing.T) {
	t.Parallel()
	key := keyFile(t)
	w := daemontest.New(t, daemontest.Options{Zones: restZones, Config: func(c *config.Config) {
		c.Encryption = config.Encryption{KeyFile: key, Seal: true}
		c.Journal.SegmentSize = config.MiB
	}})
	w.Host("127.0.2.1", smtptest.Script{})
	w.Host("127.0.2.2", smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtRcpt, Reply: "450 4.2.1 c4n4ry-reply come back later"}}})
	w.Start()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 5 {
			if _, err := w.Client().RotateKeys(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	const n = 40
	for i := range n {
		text := fmt.Sprintf("From: c4n4ry-from@app.test\r\nSubject: c4n4ry-subject %d\r\n\r\nc4n4ry-body %d\r\n", i, i)
		to := "c4n4ry-to@ok.test"
		if i%10 == 0 {
			to = "c4n4ry-to@busy.test"
		}
		for _, r := range w.Submit("c4n4ry-sender@app.test", text, to) {
			if r.Code != 250 {
				t.Fatalf("%+v", r)
			}
		}
	}
	wg.Wait()
	if _, err := w.Client().Act(t.Context(), api.Action{Verb: api.Hold, Reason: "c4n4ry-reason",
		Selection: api.Selection{Sender: "c4n4ry-sender@app.test"}}); err != nil {
		t.Fatal(err)
	}
	w.Until("the mail of a working host is delivered", func() bool { return len(w.Received()) == n-n/10 })
	noneHolds(t, w.Dir, "c4n4ry")
	w.Stop()
	noneHolds(t, w.Dir, "c4n4ry")
	if all := files(t, w.Dir); len(all) < 15 {
		t.Errorf("only %v", slices.Collect(maps.Keys(all)))
	}

	w.Start()
	list, err := w.Client().Queues(t.Context(), api.QueueQuery{})
	if err != nil || list.Entries != n/10 {
		t.Errorf("after a restart: %d entries, %v", list.Entries, err)
	}
	keys, err := w.Client().Keys(t.Context())
	if err != nil || !keys.Sealing || len(keys.Data) != 6 {
		t.Errorf("%+v, %v", keys, err)
	}
	if _, err := w.Client().Act(t.Context(), api.Action{Verb: api.Bounce, Selection: api.Selection{All: true}}); err != nil {
		t.Fatal(err)
	}
	w.WaitEmpty()
	noneHolds(t, w.Dir, "c4n4ry")
	for _, m := range w.Received() {
		if !bytes.Contains(m.Body, []byte("c4n4ry-")) {
			t.Errorf("arrived otherwise: %s", m.Body)
		}
	}
}

// TestRestTurnedOnAndOff: clear data is taken over when encryption begins, and encrypted data stays readable when it ends.
func TestRestTurnedOnAndOff(t *testing.T) {
	t.Parallel()
	key := keyFile(t)
	var enc config.Encryption
	w := daemontest.New(t, daemontest.Options{Zones: restZones, Config: func(c *config.Config) { c.Encryption = enc }})
	w.Host("127.0.2.2", smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtRcpt, Reply: "450 4.2.1 come back later"}}})
	for i, e := range []config.Encryption{{}, {KeyFile: key, Seal: true}, {KeyFile: key}, {KeyFile: key, Seal: true}} {
		enc = e
		w.Start()
		w.Submit("me@app.test", fmt.Sprintf("Subject: %d\r\n\r\nhi\r\n", i), "you@busy.test")
		list, err := w.Client().Queues(t.Context(), api.QueueQuery{})
		if err != nil || list.Entries != i+1 {
			t.Errorf("round %d: %d entries, %v", i, list.Entries, err)
		}
		if i == 3 {
			if _, err := w.Client().Act(t.Context(), api.Action{Verb: api.Bounce, Selection: api.Selection{All: true}}); err != nil {
				t.Fatal(err)
			}
			rep, err := w.Client().VerifyAudit(t.Context())
			if err != nil || rep.Problem != "" {
				t.Errorf("%+v, %v", rep, err)
			}
		}
		w.Stop()
	}
}

// TestRestRefuses: a server does not start with a wrong key, or none, says which it wants, and changes nothing.
func TestRestRefuses(t *testing.T) {
	t.Parallel()
	key := keyFile(t)
	w := daemontest.New(t, daemontest.Options{Zones: restZones, Config: func(c *config.Config) {
		c.Encryption = config.Encryption{KeyFile: key, Seal: true}
	}})
	w.Host("127.0.2.2", smtptest.Script{Rules: []smtptest.Rule{{At: smtptest.AtRcpt, Reply: "450 4.2.1 come back later"}}})
	w.Start()
	w.Submit("me@app.test", "Subject: x\r\n\r\nhi\r\n", "you@busy.test")
	list, err := w.Client().Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.Stop()
	before := files(t, w.Dir)
	for name, c := range map[string]struct {
		enc  config.Encryption
		want string
	}{
		"wrong":   {config.Encryption{KeyFile: keyFile(t), Seal: true}, list.Master},
		"missing": {config.Encryption{KeyFile: filepath.Join(t.TempDir(), "none"), Seal: true}, "none"},
		"unset":   {config.Encryption{Seal: true}, list.Master},
		"command": {config.Encryption{KeyCommand: []string{"/bin/false"}, Seal: true}, "/bin/false"},
	} {
		cfg := *w.Config()
		cfg.Encryption = c.enc
		d, err := daemon.New(daemon.Options{Config: &cfg, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Fatalf("%s: it starts: %v", name, d.Addresses())
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	after := files(t, w.Dir)
	if !maps.Equal(before, after) {
		t.Errorf("files changed: %d before, %d after", len(before), len(after))
	}
	w.Start() // with the right one all is there
	q, err := w.Client().Queues(t.Context(), api.QueueQuery{})
	if err != nil || q.Entries != 1 {
		t.Errorf("%d entries, %v", q.Entries, err)
	}
}
