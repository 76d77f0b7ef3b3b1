package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/internal/audit"
	"github.com/godwit-mta/godwit/internal/store"
)

func openStore(t *testing.T) *store.DB {
	t.Helper()
	s, err := store.Open(store.Options{Dir: "store", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func open(t *testing.T, s store.Store, anchor string) *audit.Log {
	t.Helper()
	l, err := audit.Open(audit.Options{Store: s, Anchor: anchor})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func act(n int) audit.Act {
	return audit.Act{Actor: "alice", Source: "admin socket", Action: "tenant.create", Target: fmt.Sprint("t", n),
		After: map[string]any{"name": fmt.Sprintf("T<%d>", n), "limit": n}}
}

func appendN(t *testing.T, l *audit.Log, from, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(t.Context(), act(from+i)); err != nil {
			t.Fatal(err)
		}
	}
}

func anchors(t *testing.T, path string) []audit.Anchor {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list, err := audit.ReadAnchors(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func verify(t *testing.T, s store.Store, path string) audit.Report {
	t.Helper()
	rep, err := audit.VerifyStore(t.Context(), s, anchors(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func key(i int) string { return fmt.Sprintf("audit/%016x", i) }

// edit changes the store as somebody with the disk in hand would.
func edit(t *testing.T, s store.Store, change func(b *store.Batch, get func(i int) []byte)) {
	t.Helper()
	var b store.Batch
	change(&b, func(i int) []byte {
		kv, err := s.Get(t.Context(), key(i))
		if err != nil {
			t.Fatal(err)
		}
		return kv.Value
	})
	if _, err := s.Apply(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
}

// rehash gives a changed record a hash that fits again, as who knows the format would.
func rehash(t *testing.T, line []byte, change func(r *audit.Record)) ([]byte, audit.Hash) {
	t.Helper()
	var r audit.Record
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	change(&r)
	r.Hash = audit.Sum(&r)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&r); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b.Bytes()), r.Hash
}

func setHead(b *store.Batch, index int, h audit.Hash) {
	b.Put("audit/head", fmt.Appendf(nil, `{"index":%d,"hash":"%s"}`, index, h))
}

// TestTampering is G-AUDIT: each way to change the past is found, and the first bad index is named.
func TestTampering(t *testing.T) {
	t.Parallel()
	const n = 9
	cases := []struct {
		name   string
		bad    uint64
		change func(t *testing.T, b *store.Batch, get func(int) []byte)
	}{
		{"nothing", 0, func(*testing.T, *store.Batch, func(int) []byte) {}},
		{"edited", 4, func(_ *testing.T, b *store.Batch, get func(int) []byte) {
			b.Put(key(4), bytes.Replace(get(4), []byte("alice"), []byte("mally"), 1))
		}},
		{"edited before and after", 4, func(_ *testing.T, b *store.Batch, get func(int) []byte) {
			b.Put(key(4), bytes.Replace(get(4), []byte(`"limit":4`), []byte(`"limit":5`), 1))
		}},
		{"edited and hashed anew", 4, func(t *testing.T, b *store.Batch, get func(int) []byte) {
			line, _ := rehash(t, get(4), func(r *audit.Record) { r.Actor = "mally" })
			b.Put(key(4), line)
		}},
		{"edited and the whole rest made to fit", 4, func(t *testing.T, b *store.Batch, get func(int) []byte) {
			var last audit.Hash
			for i := 4; i <= n; i++ {
				line, h := rehash(t, get(i), func(r *audit.Record) {
					if i == 4 {
						r.Actor = "mally"
					} else {
						r.Previous = last
					}
				})
				b.Put(key(i), line)
				last = h
			}
			setHead(b, n, last)
		}},
		{"removed", 5, func(_ *testing.T, b *store.Batch, _ func(int) []byte) { b.Delete(key(5)) }},
		{"removed first", 1, func(_ *testing.T, b *store.Batch, _ func(int) []byte) { b.Delete(key(1)) }},
		{"exchanged", 3, func(_ *testing.T, b *store.Batch, get func(int) []byte) {
			b.Put(key(3), get(7))
			b.Put(key(7), get(3))
		}},
		{"closed up", 5, func(_ *testing.T, b *store.Batch, get func(int) []byte) {
			for i := 5; i < n; i++ {
				b.Put(key(i), get(i+1))
			}
			b.Delete(key(n))
		}},
		{"end cut off", 8, func(_ *testing.T, b *store.Batch, get func(int) []byte) {
			b.Delete(key(8))
			b.Delete(key(9))
		}},
		{"end cut off, head put right", 8, func(t *testing.T, b *store.Batch, get func(int) []byte) {
			b.Delete(key(8))
			b.Delete(key(9))
			_, h := rehash(t, get(7), func(*audit.Record) {})
			setHead(b, 7, h)
		}},
		{"all removed", 1, func(_ *testing.T, b *store.Batch, _ func(int) []byte) {
			for i := 1; i <= n; i++ {
				b.Delete(key(i))
			}
			b.Delete("audit/head")
		}},
		{"garbage", 6, func(_ *testing.T, b *store.Batch, _ func(int) []byte) { b.Put(key(6), []byte("{")) }},
		{"unknown field", 6, func(_ *testing.T, b *store.Batch, get func(int) []byte) {
			b.Put(key(6), append([]byte(`{"note":"x",`), get(6)[1:]...))
		}},
		{"one too many", n + 1, func(_ *testing.T, b *store.Batch, get func(int) []byte) { b.Put(key(n+1), get(n)) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t)
			path := filepath.Join(t.TempDir(), "anchor")
			appendN(t, open(t, s, path), 1, n)
			edit(t, s, func(b *store.Batch, get func(int) []byte) { c.change(t, b, get) })
			rep := verify(t, s, path)
			if rep.Bad != c.bad || rep.OK() != (c.bad == 0) {
				t.Errorf("verify says %+v, want bad index %d", rep, c.bad)
			}
			if c.bad > 0 && rep.Last != c.bad-1 {
				t.Errorf("%d records are good, want %d", rep.Last, c.bad-1)
			}
			if c.bad == 0 && rep.Anchored != n {
				t.Errorf("anchored up to %d", rep.Anchored)
			}
		})
	}
}

// TestPutBack: a store of yesterday is told when it is opened, and still after new records were written to it.
func TestPutBack(t *testing.T) {
	t.Parallel()
	fs := vfs.NewCrashableMem()
	path := filepath.Join(t.TempDir(), "anchor")
	s, err := store.Open(store.Options{Dir: "store", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, s, path)
	appendN(t, l, 1, 4)
	yesterday := fs.CrashClone(vfs.CrashCloneCfg{})
	appendN(t, l, 5, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	old, err := store.Open(store.Options{Dir: "store", FS: yesterday})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if rep := verify(t, old, path); rep.Bad != 5 {
		t.Errorf("offline: %+v", rep)
	}
	l = open(t, old, path)
	if l.Finding() == nil {
		t.Error("opening tells nothing")
	}
	appendN(t, l, 100, 6) // more than were lost
	if rep := verify(t, old, path); rep.Bad != 5 {
		t.Errorf("after new records: %+v", rep)
	}
	if l = open(t, old, path); l.Finding() != nil {
		t.Log("told again:", l.Finding())
	}
}

// TestAnchorTampering: lines of the anchor that were changed or made by another key are told.
func TestAnchorTampering(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	path := filepath.Join(t.TempDir(), "anchor")
	appendN(t, open(t, s, path), 1, 5)
	list := anchors(t, path)
	if len(list) != 6 { // the key's introduction and one for each record
		t.Fatalf("%d anchors", len(list))
	}
	other := filepath.Join(t.TempDir(), "anchor")
	appendN(t, open(t, openStore(t), other), 1, 3)

	changed := slices.Clone(list)
	changed[3].Hash[0] ^= 1
	foreign := append(slices.Clone(list), anchors(t, other)[1:]...)
	for name, c := range map[string]struct {
		anchors []audit.Anchor
		bad     uint64
	}{"changed": {changed, 3}, "foreign": {foreign, 1}} {
		rep, err := audit.VerifyStore(t.Context(), s, c.anchors)
		if err != nil || rep.Bad != c.bad {
			t.Errorf("%s: %+v, %v; want bad index %d", name, rep, err, c.bad)
		}
	}
	rep, err := audit.VerifyStore(t.Context(), s, nil)
	if err != nil || !rep.OK() || !rep.Unsigned {
		t.Errorf("without anchors: %+v, %v", rep, err)
	}
}

func TestHalfAnAnchor(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	path := filepath.Join(t.TempDir(), "deep", "anchor")
	appendN(t, open(t, s, path), 1, 3)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A crash in the middle of the last line: the record is in the store, its anchor is not whole.
	if err := os.WriteFile(path, data[:len(data)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, s, path)
	if l.Finding() != nil {
		t.Error(l.Finding())
	}
	appendN(t, l, 4, 1)
	if rep := verify(t, s, path); !rep.OK() || rep.Anchored != 4 {
		t.Errorf("%+v", rep)
	}
	for _, name := range []string{path, path + ".key"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func export(t *testing.T, l *audit.Log, from uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	for r, err := range l.Records(t.Context(), from) {
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.Bytes()
}

func TestExport(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "anchor")
	l := open(t, openStore(t), path)
	appendN(t, l, 1, 6)
	whole, part := export(t, l, 0), export(t, l, 4)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for _, c := range []struct {
		name string
		text []byte
		part bool
		bad  uint64
	}{
		{"whole", whole, false, 0},
		{"part", part, true, 0},
		{"part taken for the whole", part, false, 1},
		{"edited", bytes.Replace(whole, []byte("t3"), []byte("t9"), 1), false, 3},
		{"line removed", slices.Concat(lines[0], lines[1], lines[3]), false, 3},
		{"lines exchanged", slices.Concat(lines[0], lines[2], lines[1]), false, 2},
		{"end cut off", slices.Concat(lines[0], lines[1]), false, 3},
		{"within a line", whole[:len(whole)-40], false, 6},
		{"white space", bytes.ReplaceAll(whole, []byte(`,"`), []byte(`, "`)), false, 0},
		{"empty", nil, false, 1},
	} {
		rep, err := audit.Verify(audit.ReadExport(bytes.NewReader(c.text)), anchors(t, path), c.part)
		if err != nil || rep.Bad != c.bad || rep.OK() != (c.bad == 0) {
			t.Errorf("%s: %+v, %v; want bad index %d", c.name, rep, err, c.bad)
		}
	}
}

// TestConcurrent: two processes on one store and many acts at once make one chain.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	path := filepath.Join(t.TempDir(), "anchor")
	logs := []*audit.Log{open(t, s, path), open(t, s, "")}
	const each = 25
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range each {
				if err := logs[w%2].Append(context.Background(), act(1000*w+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if rep := verify(t, s, path); !rep.OK() || rep.Last != 4*each {
		t.Errorf("%+v", rep)
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := open(t, s, "")
	var b store.Batch
	b.Expect("domain/a.test", 0)
	b.Put("domain/a.test", []byte("1"))
	rev, err := l.Apply(t.Context(), &b, audit.Act{Actor: "root", Action: "domain.add", Target: "a.test"})
	if err != nil || rev != s.Revision() {
		t.Fatalf("%d, %v", rev, err)
	}
	if kv, err := s.Get(t.Context(), "domain/a.test"); err != nil || kv.Revision != rev {
		t.Errorf("%+v, %v", kv, err)
	}
	// The second time the expectation does not hold: nothing is done and nothing is on record.
	if _, err := l.Apply(t.Context(), &b, audit.Act{Actor: "root", Action: "domain.add"}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("twice: %v", err)
	}
	if n, _ := l.Head(); n != 1 {
		t.Errorf("%d records", n)
	}
}

func TestDo(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := open(t, s, filepath.Join(t.TempDir(), "anchor"))
	did := 0
	ok := func(context.Context) (any, error) { did++; return map[string]int{"changed": 3}, nil }
	if err := l.Do(t.Context(), act(1), ok); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("no such queue")
	if err := l.Do(t.Context(), act(2), func(context.Context) (any, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	var got []string
	for r, err := range l.Records(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d of %d %s %s", r.Index, r.Of, r.After, r.Error))
	}
	want := []string{
		`1 of 0 {"limit":1,"name":"T\u003c1\u003e"} `, `2 of 1 {"changed":3} `, `3 of 0 {"limit":2,"name":"T\u003c2\u003e"} `, `4 of 3  no such queue`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestNothingUnrecorded: an act whose record cannot be written or anchored is not carried out.
func TestNothingUnrecorded(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "anchor")
	l := open(t, s, path)
	if err := os.RemoveAll(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	did := false
	err := l.Do(t.Context(), act(1), func(context.Context) (any, error) { did = true; return nil, nil })
	if err == nil || did {
		t.Errorf("without an anchor: %v, carried out: %v", err, did)
	}
	if n, _ := l.Head(); n != 0 {
		t.Errorf("%d records", n)
	}
	for name, a := range map[string]audit.Act{
		"no actor":   {Action: "x.y"},
		"no action":  {Actor: "root"},
		"not JSON":   {Actor: "root", Action: "x.y", After: func() {}},
		"unanchored": act(1),
	} {
		if err := l.Append(t.Context(), a); err == nil {
			t.Errorf("%s: appended", name)
		}
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	const canary = "c4n4ry-s3cr3t"
	secret := audit.NewSecret(canary)
	s := openStore(t)
	l := open(t, s, "")
	type credential struct {
		Login    string
		Password string
		Inner    []map[string]any
		Hidden   audit.Secret `json:"shown_as_itself"`
	}
	err := l.Append(t.Context(), audit.Act{Actor: "root", Action: "credential.create",
		Before: map[string]any{"api-key": "x", "smtp_password": canary, "Salt": []byte(canary), "token": nil},
		After:  credential{"joe", canary, []map[string]any{{"client_secret": map[string]string{"a": canary}}}, secret}})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", secret, "in", credential{Hidden: secret})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", secret, "in", &secret)
	fmt.Fprintf(&log, "%v %+v %#v %s %q %x %d", secret, credential{Hidden: secret}, secret, secret, secret, secret, secret)
	written := export(t, l, 0)
	for what, text := range map[string][]byte{"record": written, "logs": log.Bytes()} {
		if bytes.Contains(text, []byte(canary)) || bytes.Contains(text, fmt.Appendf(nil, "%x", canary)) {
			t.Errorf("%s: %s", what, text)
		}
	}
	if !bytes.Contains(written, []byte(`"Login":"joe"`)) {
		t.Errorf("too much was hidden: %s", written)
	}
	if secret.Reveal() != canary {
		t.Error("the secret is lost")
	}
}

func FuzzReadExport(f *testing.F) {
	f.Add([]byte(`{"index":1,"time":"2026-01-01T00:00:00Z","actor":"a","source":"","action":"x","previous":"` +
		strings.Repeat("0", 64) + `","hash":"` + strings.Repeat("1", 64) + `"}` + "\n"))
	f.Add([]byte("{}\n\n[1]\n"))
	f.Add([]byte(`{"index":18446744073709551615,"before":{"a":`))
	f.Fuzz(func(t *testing.T, p []byte) {
		rep, err := audit.Verify(audit.ReadExport(bytes.NewReader(p)), nil, true)
		if err == nil && rep.OK() && rep.Last > 0 && rep.First == 0 {
			t.Errorf("%+v", rep)
		}
		if _, err := audit.ReadAnchors(bytes.NewReader(p)); err != nil && !strings.Contains(err.Error(), "too long") {
			t.Error(err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	s, err := store.Open(store.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	l, err := audit.Open(audit.Options{Store: s, Anchor: filepath.Join(b.TempDir(), "anchor")})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Append(b.Context(), act(1)); err != nil {
			b.Fatal(err)
		}
	}
}
