package signing

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	verify "github.com/emersion/go-msgauth/dkim"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/signing/libcrypto"
	"github.com/godwit-mta/godwit/mailauth/dkim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "example.com"

var errHeld = errors.New("its record is not in DNS")

// ring has the keys of one domain; must.example has to be signed, and can't be.
type ring []*dkim.Key

func (r ring) Keys(name, _ string) ([]*dkim.Key, error) {
	switch name {
	case domain:
		return r, nil
	case "held.example":
		return nil, errHeld
	}
	return nil, nil
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

var edKey = sync.OnceValue(func() ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
})

func newKey(t testing.TB, selector string, s crypto.Signer) *dkim.Key {
	t.Helper()
	k, err := dkim.NewKey(dkim.KeyOptions{Domain: domain, Selector: selector, Signer: s, Expire: 8 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func dual(t testing.TB) ring { return ring{newKey(t, "r", rsaKey()), newKey(t, "e", edKey())} }

func newSigner(t testing.TB, o Options) *Signer {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const letter = "From: Ann <ann@example.com>\r\nTo: bob@example.net\r\nSubject: Hello\r\nDate: Sun, 22 Nov 2026 01:02:03 +0000\r\n" +
	"Message-ID: <1@example.com>\r\n\r\nHello.\r\n"

func lookup(name string) ([]string, error) {
	switch name {
	case "r._domainkey.example.com":
		der, err := x509.MarshalPKIXPublicKey(rsaKey().Public())
		return []string{"v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)}, err
	case "e._domainkey.example.com":
		return []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(edKey().Public().(ed25519.PublicKey))}, nil
	}
	return nil, fmt.Errorf("no such name: %s", name)
}

func TestSign(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	s := newSigner(t, Options{Keys: dual(t), Registerer: r})
	out, err := s.Sign(t.Context(), []byte("Received: x\r\n"), [][]byte{[]byte(letter)}, domain, "shop")
	if err != nil {
		t.Fatal(err)
	}
	text := string(out)
	if !strings.HasPrefix(text, "Received: x\r\nDKIM-Signature: ") || strings.Count(text, "DKIM-Signature:") != 2 || !strings.HasSuffix(text, "\r\n") {
		t.Errorf("%q", text)
	}
	list, err := verify.VerifyWithOptions(strings.NewReader(text+letter), &verify.VerifyOptions{LookupTXT: lookup})
	if err != nil || len(list) != 2 {
		t.Fatalf("%d verified: %v", len(list), err)
	}
	for _, v := range list {
		if v.Err != nil || v.Domain != domain {
			t.Errorf("%+v", v)
		}
	}
	for algorithm, c := range map[string]prometheus.Counter{"rsa": s.metrics.rsa, "ed25519": s.metrics.ed25519} {
		if n := testutil.ToFloat64(c); n != 1 {
			t.Errorf("%v signatures of %s", n, algorithm)
		}
	}
	if _, err := New(Options{Keys: dual(t), Registerer: r}); err == nil {
		t.Error("two have the same metrics")
	}
}

// TestUnsigned: what has no key goes as it is, and what must have one, or cannot be signed, is an error that is counted.
func TestUnsigned(t *testing.T) {
	t.Parallel()
	s := newSigner(t, Options{Keys: dual(t)})
	dst := []byte("Received: x\r\n")
	out, err := s.Sign(t.Context(), dst, [][]byte{[]byte(letter)}, "other.example", "")
	if err != nil || !bytes.Equal(out, dst) || testutil.ToFloat64(s.metrics.unsigned) != 1 {
		t.Errorf("%q, %v", out, err)
	}
	broken := newSigner(t, Options{Keys: ring{newKey(t, "b", odd{edKey(), func() { panic("not reached") }, errHeld})}})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	busy := newSigner(t, Options{Keys: dual(t), Workers: 1})
	busy.workers <- struct{}{}
	for _, c := range []struct {
		s       *Signer
		ctx     context.Context
		domain  string
		message string
		want    error
		kind    failure
	}{
		{s, t.Context(), "held.example", letter, errHeld, failedKeys},
		{s, t.Context(), domain, "To: b@example.net\r\n\r\nx\r\n", dkim.ErrNoFrom, failedFrom},
		{s, t.Context(), domain, "From: b@example.net\r\nFrom: a@example.com\r\n\r\nx\r\n", dkim.ErrNoFrom, failedFrom},
		{s, t.Context(), domain, "no field\r\n" + letter, dkim.ErrHeader, failedHeader},
		{s, t.Context(), domain, letter + "a\nb\r\n", dkim.ErrLineEnd, failedLineEnd},
		{broken, t.Context(), domain, letter, errHeld, failedPrimitive},
		{busy, ended, domain, letter, context.Canceled, failedWait},
	} {
		before := testutil.ToFloat64(c.s.metrics.failures[c.kind])
		out, err := c.s.Sign(c.ctx, dst, [][]byte{[]byte(c.message)}, c.domain, "")
		if !errors.Is(err, c.want) || !bytes.Equal(out, dst) {
			t.Errorf("%s: %q, %v, want %v", c.kind, out, err, c.want)
		}
		if n := testutil.ToFloat64(c.s.metrics.failures[c.kind]); n != before+1 {
			t.Errorf("%s: counted %v times", c.kind, n-before)
		}
	}
}

// odd is a key that does something first and fails then, if err is not nil.
type odd struct {
	ed25519.PrivateKey
	do  func()
	err error
}

func (o odd) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if o.err != nil {
		return nil, o.err
	}
	o.do()
	return o.PrivateKey.Sign(r, digest, opts)
}

// TestTurns: no more messages are signed at a time than there are workers, everybody gets a turn, and who does not want to wait
// any more does not.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		slow := odd{PrivateKey: edKey(), do: func() {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			now.Add(-1)
		}}
		s := newSigner(t, Options{Keys: ring{newKey(t, "s", slow)}, Workers: 3})
		begin := time.Now()
		var all sync.WaitGroup
		var late atomic.Int32
		for i := range 12 {
			all.Go(func() {
				ctx := context.Background()
				if i%2 == 1 {
					short, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
					defer cancel()
					ctx = short
				}
				out, err := s.Sign(ctx, nil, [][]byte{[]byte(letter)}, domain, "")
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					late.Add(1)
				case err != nil || len(out) == 0:
					t.Error(err)
				}
			})
		}
		all.Wait()
		// Those that wait at most 1.5 s begin within the first two rounds, or not at all.
		if most.Load() != 3 || time.Since(begin) < 2*time.Second || time.Since(begin) > 4*time.Second {
			t.Errorf("%d at a time, %d too late, after %v", most.Load(), late.Load(), time.Since(begin))
		}
	})
}

// TestPanic: a key that panics takes no turn with it.
func TestPanic(t *testing.T) {
	t.Parallel()
	s := newSigner(t, Options{Keys: ring{newKey(t, "p", odd{PrivateKey: edKey(), do: func() { panic("broken") }})}, Workers: 1})
	for range 3 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_, _ = s.Sign(t.Context(), nil, [][]byte{[]byte(letter)}, domain, "")
		}()
	}
}

func TestSetFields(t *testing.T) {
	t.Parallel()
	s := newSigner(t, Options{Keys: dual(t)[1:]})
	if err := s.SetFields(dkim.Options{Headers: []string{"no name"}}); err == nil {
		t.Error("a bad name was taken")
	}
	if err := s.SetFields(dkim.Options{Headers: []string{"X-Mark"}, Oversign: []string{"Subject"}}); err != nil {
		t.Fatal(err)
	}
	out, err := s.Sign(t.Context(), nil, [][]byte{[]byte("X-Mark: 1\r\n" + letter)}, domain, "")
	if err != nil || !bytes.Contains(out, []byte("h=From:From:X-Mark:Subject:Subject;")) {
		t.Errorf("%s, %v", out, err)
	}
	for name, o := range map[string]Options{
		"keys": {}, "workers": {Keys: ring{}, Workers: -1}, "fields": {Keys: ring{}, Fields: dkim.Options{Oversign: []string{""}}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("bad %s taken", name)
		}
	}
}

// TestReplayIsSeen is A-DKIM-7: one signed message that goes to 100,000 recipients, by a hundred transactions among very many
// others, shows in the metrics, whose memory does not grow.
func TestReplayIsSeen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := prometheus.NewRegistry()
		s := newSigner(t, Options{Keys: ring{}, Registerer: r})
		gauge := func() float64 {
			t.Helper()
			return float64(s.spread.widest())
		}
		for i := range 100 {
			for j := range 1000 {
				s.Sent(domain, "shop", fmt.Sprintf("<%d.%d@example.com>", i, j), 1)
			}
			s.Sent(domain, "shop", "<same@example.com>", 1000)
		}
		if g := gauge(); g < 90_000 || g > 100_000 {
			t.Errorf("the widest message has %v recipients", g)
		}
		if n := testutil.ToFloat64(s.metrics.wide); n != 1 {
			t.Errorf("%v wide messages, want 1", n)
		}
		s.Sent("other.example", "shop", "<same@example.com>", 5)
		s.Sent(domain, "shop", "", 200_000)
		if n := testutil.ToFloat64(s.metrics.wide); n != 1 {
			t.Errorf("%v wide messages, want 1: another author's, or one without a name, is another message", n)
		}
		time.Sleep(time.Hour)
		if g := gauge(); g < 90_000 {
			t.Errorf("an hour later the widest message of the last two has %v", g)
		}
		time.Sleep(time.Hour)
		if g := gauge(); g != 0 {
			t.Errorf("two hours later the widest message has %v", g)
		}
		if n, err := testutil.GatherAndCount(r, "godwit_signing_widest_message_recipients", "godwit_signing_recipients"); n != 2 || err != nil {
			t.Errorf("%d metrics, %v", n, err)
		}
	})
}

// nothing signs without work, which leaves the cost of everything else.
type nothing struct{ crypto.Signer }

var someSignature = make([]byte, 256)

func (nothing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return someSignature, nil }

func letter10KB() []byte {
	head, _, _ := strings.Cut(letter, "\r\n\r\n")
	return []byte(head + "\r\n\r\n" + strings.Repeat("The quick brown fox jumps over the lazy dog, again and again.\r\n", 160))
}

// BenchmarkSign is all that signing adds to a message of 10 KB; "beyond" has no primitives.
func BenchmarkSign(b *testing.B) {
	cases := []struct {
		name string
		keys ring
	}{
		{"beyond", ring{newKey(b, "r", nothing{rsaKey()}), newKey(b, "e", nothing{edKey()})}},
		{"ed25519", dual(b)[1:]}, {"rsa2048", dual(b)[:1]}, {"both", dual(b)},
	}
	if lib, err := libcrypto.Open(); err == nil {
		fast, err := lib.Signer(rsaKey())
		if err != nil {
			b.Fatal(err)
		}
		k := newKey(b, "r", fast)
		cases = append(cases, struct {
			name string
			keys ring
		}{"rsa2048 libcrypto", ring{k}}, struct {
			name string
			keys ring
		}{"both libcrypto", ring{k, dual(b)[1]}})
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			s := newSigner(b, Options{Keys: c.keys})
			pieces, dst := [][]byte{letter10KB()}, make([]byte, 0, 4096)
			b.ReportAllocs()
			b.SetBytes(int64(len(pieces[0])))
			for b.Loop() {
				if _, err := s.Sign(b.Context(), dst, pieces, domain, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
