package arc

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/mailauth/authres"
	"github.com/godwit-mta/godwit/mailauth/dkim"
)

// relay is one that seals.
type relay struct {
	id   string
	key  *dkim.Key
	name string // of the key
	txt  string
}

// relays are two, with keys of both kinds.
var relays = sync.OnceValue(func() []relay {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	_, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKIXPublicKey(r.Public())
	if err != nil {
		panic(err)
	}
	var list []relay
	for i, c := range []struct {
		signer crypto.Signer
		txt    string
	}{
		{r, "v=DKIM1; p=" + base64.StdEncoding.EncodeToString(der)},
		{e, "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(e.Public().(ed25519.PublicKey))},
	} {
		domain := fmt.Sprintf("relay%d.example", i+1)
		k, err := dkim.NewKey(dkim.KeyOptions{Domain: domain, Selector: "arc", Signer: c.signer, Identity: "@" + domain, Expire: time.Hour})
		if err != nil {
			panic(err)
		}
		list = append(list, relay{"mx." + domain, k, "arc._domainkey." + domain, c.txt})
	}
	return list
})

type zone map[string]string

var errBroken = errors.New("broken")

func (z zone) TXT(_ context.Context, name string) ([]string, error) {
	switch txt := z[name]; txt {
	case "":
		return nil, nil
	case "!":
		return nil, errBroken
	default:
		return []string{txt}, nil
	}
}

func allKeys() zone {
	z := make(zone)
	for _, r := range relays() {
		z[r.name] = r.txt
	}
	return z
}

func verify(t testing.TB, z zone, msg string) Chain {
	t.Helper()
	v, err := New(Options{Resolver: z})
	if err != nil {
		t.Fatal(err)
	}
	half := len(msg) / 2
	c, err := v.Verify(t.Context(), [][]byte{[]byte(msg[:half]), []byte(msg[half:])}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if (c.Status == Fail) != (c.Err != nil) {
		t.Fatalf("%+v", c)
	}
	return c
}

// seal passes a message on through relays in turn.
func seal(t testing.TB, msg string, by ...int) string {
	t.Helper()
	s, err := NewSealer(dkim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range by {
		r := relays()[i]
		chain := verify(t, allKeys(), msg)
		out, err := s.Seal(nil, [][]byte{[]byte(msg)}, chain, r.id, []authres.Result{
			{Method: "arc", Value: string(chain.Status)},
			{Method: "spf", Value: "pass", Properties: []authres.Property{{Type: "smtp", Name: "mailfrom", Value: "ann@example.com"}}},
		}, r.key, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		msg = string(out) + msg
	}
	return msg
}

const letter = "Received: by somebody\r\nFrom: Ann <ann@example.com>\r\nTo: bob@example.net\r\nSubject:  a   folded\r\n subject\t\r\n" +
	"Message-ID: <1@example.com>\r\n\r\nHello  you\t \r\n\r\n last\r\n\r\n"

func TestChain(t *testing.T) {
	t.Parallel()
	if c := verify(t, allKeys(), letter); c.Status != None || c.Instances != 0 {
		t.Errorf("%+v", c)
	}
	msg := seal(t, letter, 0, 1, 0)
	c := verify(t, allKeys(), msg)
	if c.Status != Pass || c.Instances != 3 || strings.Join(c.Sealers, " ") != "relay1.example relay2.example relay1.example" ||
		c.Newest.Domain != "relay1.example" || c.Newest.Identity != "" {
		t.Errorf("%+v", c)
	}
	for line := range strings.Lines(msg) {
		if len(line) > 80 {
			t.Errorf("long line %q", line)
		}
	}
	if strings.Contains(msg, "x=") || strings.Contains(msg, "i=@") {
		t.Errorf("tags of the key's own signatures:\n%s", msg)
	}
}

// TestBroken: what breaks a chain, and what does not.
func TestBroken(t *testing.T) {
	t.Parallel()
	msg := seal(t, letter, 0, 1)
	for name, c := range map[string]struct {
		old, new string
		want     Status
		err      error
	}{
		"nothing":                {"", "", Pass, nil},
		"a trace field":          {"Received: by", "Received: from x\r\nReceived: by", Pass, nil},
		"rewrapped":              {"arc=pass; spf", "arc=pass;\r\n spf", Pass, nil},
		"the body":               {"Hello", "Hallo", Fail, dkim.ErrBody},
		"the subject":            {"folded", "false", Fail, dkim.ErrSignature},
		"a result":               {"arc=pass", "arc=fail", Fail, dkim.ErrSignature},
		"the first result":       {"arc=none", "arc=pass", Fail, dkim.ErrSignature},
		"a seal's time":          {"cv=pass; d=relay2.example;\r\n\ts=arc; t=1", "cv=pass; d=relay2.example;\r\n\ts=arc; t=2", Fail, dkim.ErrSignature},
		"a state":                {"cv=none", "cv=pass", Fail, ErrStructure},
		"no state":               {"cv=none; ", "", Fail, ErrStructure},
		"sealed as broken":       {"cv=pass", "cv=fail", Fail, ErrSealed},
		"a seal with h=":         {"cv=pass", "h=From; cv=pass", Fail, ErrStructure},
		"a seal of nobody":       {"cv=pass; d=relay2.example", "cv=pass; d=..", Fail, ErrStructure},
		"a seal of somebody":     {"cv=pass; d=relay2.example", "cv=pass; d=relay9.example", Fail, dkim.ErrNoKey},
		"another instance":       {"ARC-Seal: i=2", "ARC-Seal: i=3", Fail, ErrStructure},
		"instance 0":             {"ARC-Seal: i=2", "ARC-Seal: i=0", Fail, ErrStructure},
		"instance 51":            {"ARC-Seal: i=2", "ARC-Seal: i=51", Fail, ErrStructure},
		"no instance":            {"ARC-Authentication-Results: i=2;", "ARC-Authentication-Results:", Fail, ErrStructure},
		"an instance twice":      {"ARC-Seal: i=2", "ARC-Seal: i=1", Fail, ErrStructure},
		"a set that lacks":       {"ARC-Message-Signature: i=1", "X: i=1", Fail, ErrStructure},
		"no tags":                {"ARC-Seal: i=2;", "ARC-Seal: i=2; x", Fail, ErrStructure},
		"a signature of a seal":  {"h=From:From", "h=ARC-Seal:From:From", Fail, dkim.ErrSyntax},
		"a signature with v=":    {"ARC-Message-Signature: i=2;", "ARC-Message-Signature: i=2; v=1;", Fail, dkim.ErrSyntax},
		"a second From":          {"Received: by", "From: evil@example.com\r\nReceived: by", Fail, dkim.ErrSignature},
		"the first signature":    {"ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed", "ARC-Message-Signature: i=1; a=rsa-sha256; c=simple", Fail, dkim.ErrSignature},
		"a line that is nothing": {"Received: by", "nothing\r\nReceived: by", Fail, dkim.ErrHeader},
	} {
		changed := strings.Replace(msg, c.old, c.new, 1)
		if c.old != "" && changed == msg {
			t.Fatalf("%s changes nothing in\n%s", name, msg)
		}
		if got := verify(t, allKeys(), changed); got.Status != c.want || !errors.Is(got.Err, c.err) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	z := allKeys()
	z[relays()[0].name] = "!"
	if got := verify(t, z, msg); got.Status != Fail || !errors.Is(got.Err, dkim.ErrLookup) || !errors.Is(got.Err, errBroken) {
		t.Errorf("%+v", got)
	}
}

// TestSealBroken: a chain that broke on the way is sealed as such, and only once.
func TestSealBroken(t *testing.T) {
	t.Parallel()
	changed := strings.Replace(seal(t, letter, 0), "Hello", "Hallo", 1)
	msg := seal(t, changed, 1)
	if !strings.Contains(msg, "ARC-Seal: i=2; a=ed25519-sha256; cv=fail") {
		t.Errorf("%s", msg)
	}
	chain := verify(t, allKeys(), msg)
	if chain.Status != Fail || !errors.Is(chain.Err, ErrSealed) {
		t.Errorf("%+v", chain)
	}
	s, err := NewSealer(dkim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := relays()[0]
	for name, c := range map[string]struct {
		msg   string
		chain Chain
		id    string
		want  error
	}{
		"sealed as broken":     {msg, chain, r.id, ErrSealed},
		"full":                 {letter, Chain{Status: Pass, Instances: MaxInstances}, r.id, ErrFull},
		"not whole":            {letter, Chain{Status: Fail, Err: ErrStructure}, r.id, ErrStructure},
		"of another message":   {letter, Chain{Status: Pass, Instances: 1}, r.id, ErrStructure},
		"unknown":              {changed, Chain{Status: Fail, Instances: 1, Err: dkim.ErrLookup}, r.id, dkim.ErrLookup},
		"no id":                {letter, Chain{Status: None}, "", authres.ErrWord},
		"no From":              {"To: x\r\n\r\n", Chain{Status: None}, r.id, dkim.ErrNoFrom},
		"not a line of fields": {"From: x\r\nnothing\r\n\r\n", Chain{Status: None}, r.id, nil},
	} {
		out, err := s.Seal([]byte("kept"), [][]byte{[]byte(c.msg)}, c.chain, c.id, nil, r.key, time.Now())
		if err == nil || c.want != nil && !errors.Is(err, c.want) || string(out) != "kept" {
			t.Errorf("%s: %v %q", name, err, out)
		}
	}
	if _, err := NewSealer(dkim.Options{Headers: []string{"arc-seal"}}); err == nil {
		t.Error("a signature that covers seals")
	}
}

// TestFull: fifty sets are verified, and one more is not.
func TestFull(t *testing.T) {
	t.Parallel()
	by := make([]int, MaxInstances)
	for i := range by {
		by[i] = 1
	}
	msg := seal(t, letter, by...)
	if c := verify(t, allKeys(), msg); c.Status != Pass || c.Instances != MaxInstances {
		t.Errorf("%+v", c)
	}
	if c := verify(t, allKeys(), "ARC-Seal: i=1\r\n"+msg); c.Status != Fail || !errors.Is(c.Err, ErrStructure) {
		t.Errorf("%+v", c)
	}
}

// FuzzVerify: nothing that was changed passes.
func FuzzVerify(f *testing.F) {
	msg := seal(f, letter, 1, 1)
	f.Add(uint16(0), []byte("x"))
	f.Add(uint16(300), []byte("\r\nARC-Seal: i=1; cv=none; b=AA=="))
	f.Fuzz(func(t *testing.T, at uint16, insert []byte) {
		i := int(at) % len(msg)
		c := verify(t, allKeys(), msg[:i]+string(insert)+msg[i:])
		if c.Status == Pass && (c.Instances != 2 || len(c.Sealers) != 2) {
			t.Fatalf("%+v", c)
		}
	})
}
