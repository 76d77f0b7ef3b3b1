package dkim

import (
	"bytes"
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
	"testing"
	"time"

	verify "github.com/emersion/go-msgauth/dkim"
)

// keys are made once: RSA takes its time.
var keys = sync.OnceValue(func() []*Key {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	var list []*Key
	for _, o := range []KeyOptions{
		{Domain: "example.com", Selector: "s1", Signer: r, Expire: 8 * 24 * time.Hour},
		{Domain: "example.com", Selector: "s2.mail", Signer: e, Identity: "@bounces.example.com"},
	} {
		k, err := NewKey(o)
		if err != nil {
			panic(err)
		}
		list = append(list, k)
	}
	return list
})

// lookup answers like the DNS of example.com.
func lookup(name string) ([]string, error) {
	for _, k := range keys() {
		if name != k.Selector+"._domainkey."+k.Domain {
			continue
		}
		switch pub := k.Signer.Public().(type) {
		case ed25519.PublicKey:
			return []string{"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)}, nil
		case *rsa.PublicKey:
			der, err := x509.MarshalPKIXPublicKey(pub)
			return []string{"v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)}, err
		}
	}
	return nil, fmt.Errorf("no such name: %s", name)
}

// verified returns how many of the signatures of a message hold.
func verified(t testing.TB, msg []byte) (good int, errs []error) {
	t.Helper()
	list, err := verify.VerifyWithOptions(bytes.NewReader(msg), &verify.VerifyOptions{LookupTXT: lookup})
	if err != nil {
		t.Fatalf("verifier: %v", err)
	}
	for _, v := range list {
		if v.Err == nil {
			good++
		} else {
			errs = append(errs, v.Err)
		}
	}
	return good, errs
}

func newSigner(t testing.TB, o Options) *Signer {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t testing.TB, s *Signer, msg string) []byte {
	t.Helper()
	out, err := s.Sign(nil, [][]byte{[]byte(msg)}, keys(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return append(out, msg...)
}

const letter = "Received: by somebody\r\nFrom: Ann <ann@example.com>\r\nTo: bob@example.net,\r\n\tcarol@example.net\r\n" +
	"Subject:  a   folded\r\n subject\t\r\nDate: Sun, 22 Nov 2026 01:02:03 +0000\r\nX-Other: not signed\r\n" +
	"Message-ID: <1@example.com>\r\n\r\nHello  you\t \r\n\r\n.dot\r\n last\r\n\r\n\r\n"

func TestOthersVerify(t *testing.T) {
	t.Parallel()
	s := newSigner(t, Options{})
	for name, body := range map[string]string{
		"usual": "Hello\r\nworld\r\n", "empty": "", "one line end": "\r\n", "only line ends": "\r\n\r\n\r\n", "one octet": "x",
		"no line end": "Hello\r\nworld", "blanks only": "  \t \r\n \r\n", "trailing blanks": "a \t\r\nb  b\r\n \r\n",
		"leading blanks": "  a\r\n\tb\r\n", "long": strings.Repeat("0123456789 abcdefghijklmnopqrstuvwxyz\r\n", 2000),
		"buffer's edge": strings.Repeat("x", 4094) + " y\r\n" + strings.Repeat("z", 4095) + "\r\n\r\nend", "eight bit": "gr\xfc\xdfe \xe2\x82\xac\r\n",
	} {
		head, _, _ := strings.Cut(letter, "\r\n\r\n")
		if good, errs := verified(t, sign(t, s, head+"\r\n\r\n"+body)); good != 2 {
			t.Errorf("%s: %d of 2 signatures hold: %v", name, good, errs)
		}
	}
}

// TestPieces: where the message is cut makes no difference.
func TestPieces(t *testing.T) {
	t.Parallel()
	s := newSigner(t, Options{})
	now := time.Now()
	want, err := s.Sign(nil, [][]byte{[]byte(letter)}, keys(), now)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(letter); i++ {
		got, err := s.Sign(nil, [][]byte{[]byte(letter[:i]), []byte(letter[i:])}, keys(), now)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("cut at %d: %v\n%s\nwant\n%s", i, err, got, want)
		}
	}
}

// TestWhatRelaysDo: a relay may rewrap, add trace fields and drop blanks; it may not change what is read.
func TestWhatRelaysDo(t *testing.T) {
	t.Parallel()
	signed := string(sign(t, newSigner(t, Options{}), letter))
	for name, c := range map[string]struct {
		old, new string
		good     int
	}{
		"nothing":              {"", "", 2},
		"a trace field":        {"Received: by", "Received: from a relay\r\nReceived: by", 2},
		"rewrapped":            {"a   folded\r\n subject", "a folded subject", 2},
		"another name's case":  {"Subject:  a", "SUBJECT:  a", 2},
		"blanks at a line end": {"Hello  you\t \r\n", "Hello you\r\n", 2},
		"no lines at the end":  {" last\r\n\r\n\r\n", " last\r\n", 2},
		"an unsigned field":    {"not signed", "changed", 2},
		"another subject":      {"a   folded", "a false", 0},
		"another sender":       {"ann@example.com>\r\nTo", "mallory@example.com>\r\nTo", 0},
		"a second From":        {"Received: by", "From: mallory@example.com\r\nReceived: by", 0},
		"a second Subject":     {"Received: by", "Subject: win\r\nReceived: by", 0},
		"a Reply-To":           {"Received: by", "Reply-To: mallory@example.net\r\nReceived: by", 0},
		"a List-Unsubscribe":   {"Received: by", "List-Unsubscribe: <https://evil.example>\r\nReceived: by", 0},
		"another type":         {"Received: by", "Content-Type: text/html\r\nReceived: by", 0},
		"a word more":          {"Hello", "Hello and", 0},
		"a line more":          {" last\r\n", " last\r\nPS\r\n", 0},
		"a blank made a line":  {"Hello  you", "Hello\r\nyou", 0},
		"another expiry":       {"; x=", "; x=1", 1},
		"another identity":     {"i=@bounces.", "i=@other.", 1},
	} {
		msg := strings.Replace(signed, c.old, c.new, 1)
		if c.old != "" && msg == signed {
			t.Fatalf("%s changes nothing", name)
		}
		if good, errs := verified(t, []byte(msg)); good != c.good {
			t.Errorf("%s: %d signatures hold, want %d: %v", name, good, c.good, errs)
		}
	}
}

func TestNotSigned(t *testing.T) {
	t.Parallel()
	s := newSigner(t, Options{})
	for name, c := range map[string]struct {
		msg  string
		want error
	}{
		"no From":              {"To: a@b.example\r\n\r\nx\r\n", ErrNoFrom},
		"two From":             {"From: a@b.example\r\nFrom: c@d.example\r\n\r\nx\r\n", ErrNoFrom},
		"no field (Exim 3036)": {"From: a@b.example\r\nnot a field\r\n\r\nx\r\n", ErrHeader},
		"bare LF":              {"From: a@b.example\r\n\r\nx\ny\r\n", ErrLineEnd},
		"bare CR":              {"From: a@b.example\r\n\r\nx\ry\r\n", ErrLineEnd},
		"CR at the end":        {"From: a@b.example\r\n\r\nx\r", ErrLineEnd},
		"bare LF in a field":   {"From: a@b.example\r\nSubject: x\n y\r\n\r\n", ErrLineEnd},
		"too many":             {"From: a@b.example\r\n" + strings.Repeat("To: x@y.example\r\n", 101) + "\r\n", ErrHeader},
	} {
		out, err := s.Sign([]byte("kept"), [][]byte{[]byte(c.msg)}, keys(), time.Now())
		if !errors.Is(err, c.want) || string(out) != "kept" {
			t.Errorf("%s: %v, %q", name, err, out)
		}
	}
}

func TestKeysThatDoNotSign(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good := keys()[0].KeyOptions
	for want, change := range map[string]func(*KeyOptions){
		"need 2048":       func(k *KeyOptions) { k.Signer = small },
		"no domain":       func(k *KeyOptions) { k.Domain = "example..com" },
		"is no selector":  func(k *KeyOptions) { k.Selector = "a;b" },
		"not outlast":     func(k *KeyOptions) { k.Expire = time.Minute },
		"not at or below": func(k *KeyOptions) { k.Domain, k.Identity = "example.net", "@fexample.net" },
		"without a":       func(k *KeyOptions) { k.Signer = nil },
		"cannot sign":     func(k *KeyOptions) { k.Signer = odd{} },
	} {
		k := good
		change(&k)
		if _, err := NewKey(k); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, id := range []string{"@example.com", "ann@example.com", "@a.b.EXAMPLE.com"} {
		k := good
		k.Identity = id
		if _, err := NewKey(k); err != nil {
			t.Error(err)
		}
	}
}

type odd struct{ crypto.Signer }

func (odd) Public() crypto.PublicKey { return "odd" }

// failing is a key whose hardware is away.
type failing struct{ crypto.Signer }

var errAway = errors.New("away")

func (f failing) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return nil, errAway
}

func TestKeyFails(t *testing.T) {
	t.Parallel()
	k := *keys()[1]
	k.Signer = failing{k.Signer}
	out, err := newSigner(t, Options{}).Sign(nil, [][]byte{[]byte(letter)}, []*Key{keys()[0], &k}, time.Now())
	if !errors.Is(err, errAway) || len(out) != 0 || !strings.Contains(err.Error(), "s2.mail") {
		t.Errorf("%v, %q", err, out)
	}
}

func TestShape(t *testing.T) {
	t.Parallel()
	out, err := newSigner(t, Options{}).Sign(nil, [][]byte{[]byte(letter)}, keys(), time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasSuffix(line, "\r\n") || len(line) > 80 {
			t.Errorf("line %q", line)
		}
	}
	text := string(out)
	for _, want := range []string{"t=1000000000; x=1000691200;", "a=rsa-sha256", "a=ed25519-sha256", "From:From", "i=@bounces.example.com"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "l=") || strings.Contains(text, "X-Other") || strings.Contains(text, "Received") {
		t.Errorf("%s", text)
	}
}

// FuzzSign: whatever is signed verifies elsewhere, and what is not signed is refused with a reason.
func FuzzSign(f *testing.F) {
	f.Add([]byte(letter), uint16(7))
	f.Add([]byte("From: a@b.example\r\n\r\n  \r\n\t x \r\n\r\n"), uint16(0))
	f.Add([]byte("From:\r\n a@b.example\r\nSubject:\r\n\r\n\r\n"), uint16(3))
	s := newSigner(f, Options{})
	f.Fuzz(func(t *testing.T, msg []byte, cut uint16) {
		i := int(cut) % (len(msg) + 1)
		out, err := s.Sign(nil, [][]byte{msg[:i], msg[i:]}, keys()[1:], time.Now())
		if err != nil {
			if len(out) != 0 {
				t.Fatalf("%v, and yet %q", err, out)
			}
			return
		}
		signed := append(out, msg...)
		if bytes.Contains(bytes.ToLower(msg), []byte("dkim-signature")) || !bytes.Contains(msg, []byte("\r\n\r\n")) {
			return // the verifier has other signatures to look at, or wants an empty line
		}
		list, err := verify.VerifyWithOptions(bytes.NewReader(signed), &verify.VerifyOptions{LookupTXT: lookup})
		if err != nil {
			return // it does not read the header
		}
		for _, v := range list {
			if v.Err != nil {
				t.Fatalf("%v\n%q", v.Err, signed)
			}
		}
	})
}

func BenchmarkSign10KB(b *testing.B) {
	head, _, _ := strings.Cut(letter, "\r\n\r\n")
	msg := []byte(head + "\r\n\r\n" + strings.Repeat("The quick brown fox jumps over the lazy dog, again and again.\r\n", 160))
	s := newSigner(b, Options{})
	null := *keys()[1]
	null.Signer = nothing{null.Signer}
	for name, list := range map[string][]*Key{
		"rsa2048": keys()[:1], "ed25519": keys()[1:], "both": keys(), "no primitive": {&null, &null},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(msg)))
			out := make([]byte, 0, 4096)
			now := time.Now()
			for b.Loop() {
				var err error
				if out, err = s.Sign(out[:0], [][]byte{msg}, list, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// nothing signs without work, which leaves the cost of everything else.
type nothing struct{ crypto.Signer }

var someSignature = make([]byte, 256)

func (nothing) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return someSignature, nil
}
