package seal_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godwit-mta/godwit/internal/seal"
	"github.com/godwit-mta/godwit/smtp"
)

func masters(t testing.TB, text ...string) []seal.Master {
	t.Helper()
	m, err := seal.ParseMasters([]byte(strings.Join(text, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func open(t testing.TB, dir string, m []seal.Master) *seal.Keyring {
	t.Helper()
	k, err := seal.Open(seal.Options{Dir: dir, Masters: m, Seal: true})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func bytesOf(t testing.TB, b *smtp.Body) []byte {
	t.Helper()
	p, err := io.ReadAll(b.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// TestRecords: every size about the borders of pieces comes back, and lengths are told right.
func TestRecords(t *testing.T) {
	t.Parallel()
	k := open(t, t.TempDir(), masters(t, seal.NewMaster()))
	meta := []byte("subject: canary")
	const piece = 16<<10 - 16
	for _, size := range []int{0, 1, 15, 16, 17, piece - 1, piece, piece + 1, 2 * piece, 16 << 10, 64 << 10, 5*piece + 3, 300_001} {
		clear := random(size)
		body := smtp.NewBody()
		body.Append(clear)
		if size > 100 { // trace headers and dropped ones lie elsewhere
			body.Prepend([]byte("Received: x\r\n"))
			clear = append([]byte("Received: x\r\n"), clear...)
		}
		sealed, out := k.Seal(nil, 3, meta, body)
		if bytes.Contains(sealed, []byte("canary")) || size > 64 && bytes.Contains(bytesOf(t, out), clear[20:52]) {
			t.Fatal("it is not sealed")
		}
		if got := k.BodySize(out.Size()); got != int64(len(clear)) {
			t.Errorf("%d octets: told as %d", len(clear), got)
		}
		got, err := k.OpenMeta([]byte("x"), 3, sealed)
		if err != nil || string(got) != "x"+string(meta) {
			t.Fatalf("%d octets: meta %q, %v", size, got, err)
		}
		// A body read from the journal lies in other pieces than the one that was written.
		again := smtp.NewBody()
		again.Append(bytesOf(t, out))
		again.EightBit, again.DotLine = out.EightBit, out.DotLine
		for _, b := range []*smtp.Body{out, again} {
			back, err := k.OpenBody(3, sealed, b)
			if err != nil || !bytes.Equal(bytesOf(t, back), clear) || back.EightBit != body.EightBit || back.DotLine != body.DotLine {
				t.Fatalf("%d octets: the body is another one: %v", size, err)
			}
			back.Release()
			b.Release()
		}
		body.Release()
	}
	if sealed, out := k.Seal(nil, 1, nil, nil); out != nil {
		t.Error("a body out of nothing")
	} else if got, err := k.OpenMeta(nil, 1, sealed); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
}

// TestForged: any flipped bit, a piece dropped, exchanged, or of another record, and another kind are told.
func TestForged(t *testing.T) {
	t.Parallel()
	k := open(t, t.TempDir(), masters(t, seal.NewMaster()))
	body := smtp.BodyOf(random(40_000))
	defer body.Release()
	sealed, out := k.Seal(nil, 3, []byte("meta"), body)
	wire := bytesOf(t, out)
	other, _ := k.Seal(nil, 3, []byte("meta"), body)
	refused := func(what string, kind uint8, meta, body []byte) {
		t.Helper()
		if _, err := k.OpenMeta(nil, kind, meta); body == nil && err == nil {
			t.Errorf("%s: the meta opens", what)
		}
		if body == nil {
			return
		}
		b := smtp.BodyOf(body)
		defer b.Release()
		if _, err := k.OpenBody(kind, meta, b); err == nil {
			t.Errorf("%s: the body opens", what)
		}
	}
	for i := range sealed {
		bad := slices.Clone(sealed)
		bad[i] ^= 1
		refused(fmt.Sprint("bit of the meta ", i), 3, bad, nil)
	}
	for i := 0; i < len(wire); i += 97 {
		bad := slices.Clone(wire)
		bad[i] ^= 0x10
		refused(fmt.Sprint("bit of the body ", i), 3, sealed, bad)
	}
	const piece = 16 << 10
	refused("another kind", 4, sealed, nil)
	refused("another kind", 4, sealed, wire)
	refused("first piece dropped", 3, sealed, wire[piece:])
	refused("last piece dropped", 3, sealed, wire[:2*piece])
	refused("exchanged", 3, sealed, slices.Concat(wire[piece:2*piece], wire[:piece], wire[2*piece:]))
	refused("another record's", 3, other, wire)
	refused("empty", 3, sealed, []byte{})
	refused("short", 3, sealed, wire[:8])
	refused("nothing", 3, nil, wire)
	for n := range len(sealed) {
		refused(fmt.Sprint("cut to ", n), 3, sealed[:n], nil)
	}
}

// TestNonces: no two records have the same stream and number, over restarts and rotations and many goroutines.
func TestNonces(t *testing.T) {
	t.Parallel()
	dir, m := t.TempDir(), masters(t, seal.NewMaster())
	const header = 29
	seen := make(map[string]bool)
	var mu sync.Mutex
	for range 3 { // starts
		k := open(t, dir, m)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 500 {
					p, _ := k.Seal(nil, 1, []byte("x"), nil)
					mu.Lock()
					if seen[string(p[:header])] {
						t.Error("twice")
					}
					seen[string(p[:header])] = true
					mu.Unlock()
				}
			})
		}
		if err := k.Rotate(m); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
	if len(seen) != 6000 {
		t.Errorf("%d", len(seen))
	}
}

// TestRotation: what older data keys and master keys have sealed stays readable, also after a restart with the new master
// alone.
func TestRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := seal.NewMaster(), seal.NewMaster()
	k := open(t, dir, masters(t, first))
	var kept [][]byte
	for i := range 5 {
		kept = append(kept, k.SealText(nil, fmt.Append(nil, i)))
		m := masters(t, first)
		if i >= 2 {
			m = masters(t, second, first)
		}
		if err := k.Rotate(m); err != nil {
			t.Fatal(err)
		}
	}
	check := func(k *seal.Keyring) {
		t.Helper()
		for i, p := range kept {
			if got, err := k.OpenText(nil, p); err != nil || string(got) != fmt.Sprint(i) {
				t.Errorf("%d: %q, %v", i, got, err)
			}
		}
		if list := k.List(); len(list) != 6 || list[0].Master != k.Master() {
			t.Errorf("%+v", list)
		}
	}
	check(k)
	check(open(t, dir, masters(t, second)))
	if _, err := seal.Open(seal.Options{Dir: dir, Masters: masters(t, first), Seal: true}); !errors.Is(err, seal.ErrNoMaster) ||
		!strings.Contains(err.Error(), masters(t, second)[0].ID()) {
		t.Errorf("with the old master: %v", err)
	}
}

func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		p, err := os.ReadFile(path)
		all[path] = string(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRefusals: a wrong or missing key, or lost data keys, are told with the id that is wanted, and nothing is changed.
func TestRefusals(t *testing.T) {
	t.Parallel()
	right, wrong := seal.NewMaster(), seal.NewMaster()
	id := masters(t, right)[0].ID()
	cases := []struct {
		name   string
		change func(t *testing.T, dir string)
		key    string
		want   string // in the error; empty: it opens
	}{
		{"right", func(*testing.T, string) {}, right, ""},
		{"wrong master", func(*testing.T, string) {}, wrong, id},
		{"no master", func(*testing.T, string) {}, "", id},
		{"data keys are gone", func(t *testing.T, dir string) {
			remove(t, dir, "keys.json", "keys.copy.json")
		}, right, "data key"},
		{"data keys are gone, no master", func(t *testing.T, dir string) {
			remove(t, dir, "keys.json", "keys.copy.json")
		}, "", "data key"},
		{"one file is gone", func(t *testing.T, dir string) { remove(t, dir, "keys.json") }, right, ""},
		{"one file is damaged", func(t *testing.T, dir string) { write(t, dir, "keys.json", "{") }, right, ""},
		{"both files are damaged", func(t *testing.T, dir string) {
			write(t, dir, "keys.json", "{")
			write(t, dir, "keys.copy.json", "")
		}, right, "damaged"},
		{"damaged key", func(t *testing.T, dir string) {
			p, err := os.ReadFile(filepath.Join(dir, "keys.json"))
			if err != nil {
				t.Fatal(err)
			}
			i := bytes.Index(p, []byte(`"wrapped": "`)) + 20
			p[i] ^= 1
			write(t, dir, "keys.json", string(p))
			write(t, dir, "keys.copy.json", string(p))
		}, right, "damaged"},
		{"newer version", func(t *testing.T, dir string) {
			write(t, dir, "keys.json", `{"version": 2}`)
			write(t, dir, "keys.copy.json", `{"version": 2}`)
		}, right, "version"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			k := open(t, dir, masters(t, right))
			sealFile(t, k, filepath.Join(dir, "store"), "000001.log", []byte("x"))
			c.change(t, dir)
			before := snapshot(t, dir)
			var err error
			if c.key == "" {
				err = seal.Check(dir)
			} else {
				_, err = seal.Open(seal.Options{Dir: dir, Masters: masters(t, c.key), Seal: true})
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), right) || strings.Contains(err.Error(), wrong)) {
				t.Error("the error tells a key")
			}
			after := snapshot(t, dir)
			if len(before) != len(after) {
				t.Fatalf("%d files, then %d", len(before), len(after))
			}
			for name, text := range before {
				if after[name] != text {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
	if err := seal.Check(t.TempDir()); err != nil {
		t.Errorf("an empty directory: %v", err)
	}
}

func remove(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		if err := os.Remove(filepath.Join(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMasters(t *testing.T) {
	t.Parallel()
	key := random(32)
	for text, n := range map[string]int{
		seal.NewMaster():                                  1,
		"# a comment\n\n" + seal.NewMaster():              1,
		hex.EncodeToString(key) + "\r\n":                  1,
		seal.NewMaster() + "\n" + seal.NewMaster() + "\n": 2,
		"":            0,
		"# nothing":   0,
		"gwmaster_x":  0,
		"c4n4ry-line": 0,
		strings.Repeat("A", 44) + "\n" + seal.NewMaster(): 0,
	} {
		m, err := seal.ParseMasters([]byte(text))
		if len(m) != n || (err == nil) != (n > 0) {
			t.Errorf("%q: %d keys, %v", text, len(m), err)
		}
		if err != nil && strings.Contains(err.Error(), "c4n4ry") {
			t.Errorf("the error repeats the line: %v", err)
		}
		for i := range m {
			if s := fmt.Sprintf("%v %+v %#v %s", m[i], m, m[i], &m[i]); strings.Contains(s, hex.EncodeToString(key)[:16]) {
				t.Errorf("a key prints itself: %s", s)
			}
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	write(t, dir, "key", seal.NewMaster())
	if _, err := seal.LoadMasters(t.Context(), path, nil); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.LoadMasters(t.Context(), path, nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable for all: %v", err)
	}
	if m, err := seal.LoadMasters(t.Context(), "", []string{"/bin/echo", hex.EncodeToString(key)}); err != nil || len(m) != 1 {
		t.Errorf("a command: %v", err)
	}
	for _, command := range [][]string{{"/bin/false"}, {"/bin/echo", "c4n4ry"}, {"/no/such/command"}} {
		if _, err := seal.LoadMasters(t.Context(), "", command); err == nil || strings.Contains(err.Error(), "c4n4ry") {
			t.Errorf("%v: %v", command, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k := open(f, f.TempDir(), masters(f, seal.NewMaster()))
	b := smtp.BodyOf(random(100))
	sealed, out := k.Seal(nil, 3, []byte("meta"), b)
	f.Add(sealed, bytesOf(f, out))
	f.Add([]byte{1}, []byte{})
	f.Fuzz(func(t *testing.T, meta, body []byte) {
		got, err := k.OpenMeta(nil, 3, meta)
		if err == nil && (string(got) != "meta" || !bytes.Equal(meta, sealed)) {
			t.Error("forged meta")
		}
		b := smtp.BodyOf(body)
		defer b.Release()
		if _, err := k.OpenBody(3, meta, b); err == nil && !bytes.Equal(body, bytesOf(t, out)) {
			t.Error("forged body")
		}
	})
}

// BenchmarkSeal is what a message of 10 KB costs.
func BenchmarkSeal(b *testing.B) {
	k := open(b, b.TempDir(), masters(b, seal.NewMaster()))
	body := smtp.BodyOf(random(10_000))
	meta := random(400)
	var dst []byte
	b.ReportAllocs()
	b.SetBytes(10_400)
	for b.Loop() {
		var out *smtp.Body
		dst, out = k.Seal(dst[:0], 1, meta, body)
		out.Release()
	}
}

func BenchmarkOpen(b *testing.B) {
	k := open(b, b.TempDir(), masters(b, seal.NewMaster()))
	body := smtp.BodyOf(random(10_000))
	meta, sealed := k.Seal(nil, 1, random(400), body)
	b.ReportAllocs()
	b.SetBytes(10_400)
	for b.Loop() {
		out, err := k.OpenBody(1, meta, sealed)
		if err != nil {
			b.Fatal(err)
		}
		out.Release()
	}
}
