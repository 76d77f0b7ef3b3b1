package journal_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/smtp"
)

// TestKill kills a process that appends to a journal on real files, several times, and finds each batch that the process said was
// durable, or written, before.
func TestKill(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("JOURNAL_KILL"); dir != "" {
		appendForEver(t, dir)
	}
	dir := t.TempDir()
	told := make(map[string]journal.Position)
	for life := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "JOURNAL_KILL="+dir, fmt.Sprint("JOURNAL_LIFE=", life))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < 300 && lines.Scan(); n++ {
			var meta string
			var p journal.Position
			if _, err := fmt.Sscan(lines.Text(), &meta, &p); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			told[meta] = p
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		var killed *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &killed) || killed.Exited() {
			t.Fatalf("life %d ended by itself: %v", life, err)
		}
	}
	j := openRunning(t, journal.Options{Dir: dir})
	if len(told) != 4*300 || len(j.Damage()) > 0 {
		t.Errorf("%d batches, damage %+v", len(told), j.Damage())
	}
	for meta, p := range told {
		r, err := j.Read(t.Context(), p)
		if err != nil || string(r.Meta) != meta {
			t.Fatalf("%s at %#x: %q, %v", meta, uint64(p), r.Meta, err)
		}
		data, err := io.ReadAll(r.Body.Reader())
		if err != nil || !bytes.Equal(data, bytes.Repeat([]byte(meta+"\r\n"), 200)) {
			t.Errorf("body of %s differs: %v", meta, err)
		}
		r.Body.Release()
	}
}

// appendForEver tells each batch on standard output when it may.
func appendForEver(t *testing.T, dir string) {
	j, err := journal.Open(journal.Options{Dir: dir, SegmentSize: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	for w := range 8 {
		go func() {
			for n := 0; ; n++ {
				meta := fmt.Sprintf("life%s/%d/%d", os.Getenv("JOURNAL_LIFE"), w, n)
				body := smtp.BodyOf(bytes.Repeat([]byte(meta+"\r\n"), 200))
				b := &journal.Batch{Records: []journal.Record{{Kind: 1, Meta: []byte(meta), Body: body}}}
				appendTo := j.Append
				if w == 0 {
					appendTo = j.AppendWritten
				}
				if err := appendTo(context.Background(), b); err != nil {
					panic(err)
				}
				body.Release()
				mu.Lock()
				fmt.Println(meta, uint64(b.Records[0].Position))
				mu.Unlock()
			}
		}()
	}
	panic(j.Run(context.Background())) // until the kill
}
