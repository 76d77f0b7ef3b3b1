package dkim

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	verify "github.com/emersion/go-msgauth/dkim"

	"github.com/godwit-mta/godwit/mailauth/internal/tagsig"
)

// zone is a DNS of TXT records.
type zone struct {
	txt map[string][]string
	err error
	mu  sync.Mutex
	n   int // questions
}

func (z *zone) TXT(_ context.Context, name string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.n++
	return z.txt[name], z.err
}

// ownZone has the keys of the tests of signing.
func ownZone(t testing.TB) *zone {
	z := &zone{txt: make(map[string][]string)}
	for _, k := range keys() {
		name := k.Selector + "._domainkey." + k.Domain
		list, err := lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		z.txt[name] = list
	}
	return z
}

func verifyWith(t testing.TB, o VerifyOptions, msg string, now time.Time) []Result {
	t.Helper()
	v, err := NewVerifier(o)
	if err != nil {
		t.Fatal(err)
	}
	list, err := v.Verify(t.Context(), [][]byte{[]byte(msg)}, now)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func statuses(list []Result) string {
	var s []string
	for _, r := range list {
		s = append(s, string(r.Status))
	}
	return strings.Join(s, " ")
}

// TestExamples has the signed messages of RFC 6376, A.2, and RFC 8463, A.3, and one whose key is published as PKCS #1.
func TestExamples(t *testing.T) {
	t.Parallel()
	z := &zone{txt: make(map[string][]string)}
	data, err := os.ReadFile("testdata/keys")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		name, record, _ := strings.Cut(strings.TrimSpace(line), " ")
		z.txt[name] = []string{record}
	}
	for name, want := range map[string]string{"rfc6376-a": "pass", "rfc8463-a": "pass pass", "pkcs1-key": "pass"} {
		data, err := os.ReadFile("testdata/" + name + ".eml")
		if err != nil {
			t.Fatal(err)
		}
		msg := strings.ReplaceAll(string(data), "\n", "\r\n")
		o := VerifyOptions{Resolver: z}
		if list := verifyWith(t, o, msg, time.Now()); statuses(list) != want {
			t.Errorf("%s: %+v", name, list)
		}
		bad := strings.ReplaceAll(want, "pass", "fail")
		for _, change := range []string{"dinner", "hungry", "Suzie Q"} {
			if list := verifyWith(t, o, strings.Replace(msg, change, "other", 1), time.Now()); statuses(list) != bad {
				t.Errorf("%s without %s: %+v", name, change, list)
			}
		}
	}
}

// TestOwn: what is signed here verifies here, wherever the message is cut.
func TestOwn(t *testing.T) {
	t.Parallel()
	msg := sign(t, newSigner(t, Options{}), letter)
	v, err := NewVerifier(VerifyOptions{Resolver: ownZone(t)})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i <= len(msg); i += 7 {
		list, err := v.Verify(t.Context(), [][]byte{msg[:i], msg[i:]}, time.Now())
		if err != nil || statuses(list) != "pass pass" {
			t.Fatalf("cut at %d: %v %+v", i, err, list)
		}
	}
	r, err := v.Verify(t.Context(), [][]byte{msg}, time.Now())
	if err != nil || r[0].Domain != "example.com" || r[0].Selector != "s1" || r[0].Algorithm != "rsa-sha256" || len(r[0].B) != 8 ||
		r[0].Identity != "@example.com" || r[1].Identity != "@bounces.example.com" || r[0].Length != -1 || r[0].B == r[1].B {
		t.Errorf("%v %+v", err, r)
	}
}

// signRaw signs as the template says, which ends with "b="; $BH stands for the hash of the body, made canonical as relaxed.
func signRaw(t testing.TB, template, msg string) string {
	t.Helper()
	_, body, _ := strings.Cut(msg, "\r\n\r\n")
	h := sha256.New()
	var c tagsig.RelaxedBody
	c.Reset(h)
	c.Feed([]byte(body))
	c.End()
	field := "DKIM-Signature: " + strings.Replace(template, "$BH", base64.StdEncoding.EncodeToString(h.Sum(nil)), 1)
	m, err := parseMessage([][]byte{[]byte(field + "\r\n" + msg)})
	if err != nil {
		t.Fatal(err)
	}
	for f := range m.header.All("DKIM-Signature") {
		s := &signature{field: f, kind: dkimSignature, simpleHeader: strings.Contains(template, "simple/")}
		if s.tags, err = tagsig.ParseTags(value(f)); err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		m.hashHeader(h, s)
		sig, err := keys()[0].SignHash(h.Sum(nil))
		if err != nil {
			t.Fatal(err)
		}
		return field + base64.StdEncoding.EncodeToString(sig) + "\r\n" + msg
	}
	t.Fatal("no field")
	return ""
}

const plainTemplate = "v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1; h=From:Subject; bh=$BH; b="

// TestPolicies: signatures that are made correctly and yet are not taken, or say something odd.
func TestPolicies(t *testing.T) {
	t.Parallel()
	const msg = "From: a@example.com\r\nSubject: s\r\n\r\nhello\r\nworld\r\n"
	now := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		old, new string
		want     Status
		err      error
	}{
		"as it is":                {"", "", Pass, nil},
		"simple header":           {"relaxed/", "simple/", Pass, nil},
		"other version":           {"v=1", "v=2", Neutral, ErrSyntax},
		"no version":              {"v=1; ", "", Neutral, ErrSyntax},
		"SHA-1":                   {"rsa-sha256", "rsa-sha1", Policy, ErrWeakHash},
		"unknown algorithm":       {"rsa-sha256", "rsa-md5", Neutral, ErrSyntax},
		"other kind of key":       {"rsa-sha256", "ed25519-sha256", PermError, ErrRecord},
		"unknown form":            {"relaxed/", "loose/", Neutral, ErrSyntax},
		"From not signed":         {"From:", "", PermError, ErrFromNotSigned},
		"no h=":                   {"h=From:Subject; ", "", Neutral, ErrSyntax},
		"identity":                {"s=s1", "s=s1; i=ann@news.example.com", Pass, nil},
		"foreign identity (R-20)": {"s=s1", "s=s1; i=@fexample.com", PermError, ErrIdentity},
		"identity above":          {"s=s1", "s=s1; i=@com", PermError, ErrIdentity},
		"identity without @":      {"s=s1", "s=s1; i=example.com", PermError, ErrIdentity},
		"no such key":             {"s=s1", "s=s9", PermError, ErrNoKey},
		"no selector":             {"s=s1", "s=a b", Neutral, ErrSyntax},
		"no domain":               {"d=example.com", "d=..", Neutral, ErrSyntax},
		"other query":             {"s=s1", "s=s1; q=http", Neutral, ErrSyntax},
		"known query":             {"s=s1", "s=s1; q=http:dns/txt", Pass, nil},
		"unknown tag":             {"s=s1", "s=s1; zz=1", Pass, nil},
		"expired":                 {"s=s1", "s=s1; t=1799990000; x=1799999000", Fail, ErrExpired},
		"expired within skew":     {"s=s1", "s=s1; t=1799990000; x=1799999401", Pass, nil},
		"not yet expired":         {"s=s1", "s=s1; t=1799990000; x=1800000001", Pass, nil},
		"expires before made":     {"s=s1", "s=s1; t=1800000001; x=1800000000", Neutral, ErrSyntax},
		"a little ahead":          {"s=s1", "s=s1; t=1800000599", Pass, nil},
		"far ahead":               {"s=s1", "s=s1; t=1800000700", Fail, ErrFuture},
		"no number":               {"s=s1", "s=s1; t=soon", Neutral, ErrSyntax},
		"whole length":            {"s=s1", "s=s1; l=14", Pass, nil},
		"more than the body":      {"s=s1", "s=s1; l=15", Fail, ErrBody},
		"many names":              {"From:", "From:" + strings.Repeat("X:", MaxSignedNames), Neutral, ErrSyntax},
		"huge (A-DKIM-6)":         {"From:", "From:" + strings.Repeat("X:", MaxSignature), Neutral, ErrSyntax},
		"oversigned":              {"From:", "From:From:", Pass, nil},
	} {
		template := plainTemplate
		if c.old != "" {
			template = strings.Replace(plainTemplate, c.old, c.new, 1)
		}
		list := verifyWith(t, VerifyOptions{Resolver: ownZone(t)}, signRaw(t, template, msg), now)
		if len(list) != 1 || list[0].Status != c.want || !errors.Is(list[0].Err, c.err) {
			t.Errorf("%s: %+v", name, list)
		}
	}
	// Syntax that signRaw cannot make.
	good := signRaw(t, plainTemplate, msg)
	for _, bad := range []string{
		"From: a@example.com\r\nDKIM-Signature: \r\n\r\n", "From: a@example.com\r\nDKIM-Signature: ;;\r\n\r\n",
		strings.Replace(good, "d=example.com", "d=example.com; d=example.com", 1), strings.Replace(good, " b=", " b=!", 1), strings.Replace(good, " b=", " c2=", 1), strings.Replace(good, "bh=", "bh=\x01", 1),
	} {
		if list := verifyWith(t, VerifyOptions{Resolver: ownZone(t)}, bad, now); statuses(list) != "neutral" {
			t.Errorf("%q: %+v", bad, list)
		}
	}
}

// TestPartial: a signature of a part of the body counts only where that is wanted.
func TestPartial(t *testing.T) {
	t.Parallel()
	const head = "From: a@example.com\r\nSubject: s\r\n\r\n"
	msg := signRaw(t, strings.Replace(plainTemplate, "s=s1", "s=s1; l=7", 1), head+"hello\r\n") + "and more\r\n"
	o := VerifyOptions{Resolver: ownZone(t)}
	if list := verifyWith(t, o, msg, time.Now()); statuses(list) != "policy" || !errors.Is(list[0].Err, ErrPartial) || list[0].Length != 7 {
		t.Errorf("%+v", list)
	}
	o.Partial = true
	if list := verifyWith(t, o, msg, time.Now()); statuses(list) != "pass" || list[0].Length != 7 {
		t.Errorf("%+v", list)
	}
	if list := verifyWith(t, o, strings.Replace(msg, "hello", "HELLO", 1), time.Now()); statuses(list) != "fail" {
		t.Errorf("%+v", list)
	}
}

// TestKeyRecords: what a record makes of a signature that holds.
func TestKeyRecords(t *testing.T) {
	t.Parallel()
	msg := signRaw(t, strings.Replace(plainTemplate, "s=s1", "s=s1; i=@news.example.com", 1), "From: a@example.com\r\n\r\nx\r\n")
	const name = "s1._domainkey.example.com"
	good := ownZone(t).txt[name][0]
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	wide := &rsa.PublicKey{N: new(big.Int).Lsh(small.N, MaxVerifyRSABits), E: small.E}
	pub := func(k *rsa.PublicKey) string {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return "v=DKIM1; p=" + base64.StdEncoding.EncodeToString(der)
	}
	for text, c := range map[string]struct {
		records []string
		want    Status
		err     error
	}{
		"as it is":            {[]string{good}, Pass, nil},
		"no version":          {[]string{strings.TrimPrefix(good, "v=DKIM1; ")}, Pass, nil},
		"blanks in it":        {[]string{strings.Replace(good, "p=MI", "p=M I", 1)}, Pass, nil},
		"for mail":            {[]string{good + "; s=email:x; h=sha1:sha256;"}, Pass, nil},
		"after another text":  {[]string{"v=spf1 -all", good}, Pass, nil},
		"nothing":             {nil, PermError, ErrNoKey},
		"revoked":             {[]string{"v=DKIM1; p="}, PermError, ErrRevoked},
		"other version":       {[]string{strings.Replace(good, "DKIM1", "DKIM2", 1)}, PermError, ErrRecord},
		"not for mail":        {[]string{good + "; s=tlsrpt"}, PermError, ErrRecord},
		"SHA-1 only":          {[]string{good + "; h=sha1"}, PermError, ErrRecord},
		"other kind":          {[]string{strings.Replace(good, "k=rsa", "k=dsa", 1)}, PermError, ErrRecord},
		"no key at all":       {[]string{"v=DKIM1"}, PermError, ErrRecord},
		"not base64":          {[]string{"v=DKIM1; p=!"}, PermError, ErrRecord},
		"no DER":              {[]string{"v=DKIM1; p=AAAA"}, PermError, ErrRecord},
		"short Ed25519":       {[]string{"v=DKIM1; k=ed25519; p=AAAA"}, PermError, ErrRecord},
		"strict":              {[]string{good + "; t=s"}, PermError, ErrIdentity},
		"another key":         {[]string{pub(&small.PublicKey)}, Fail, ErrSignature},
		"too wide":            {[]string{pub(wide)}, Policy, ErrWeakKey},
		"too long":            {[]string{good + strings.Repeat(" ", MaxRecord)}, PermError, ErrRecord},
		"not among the first": {[]string{"a", "b", "c", "d", good}, PermError, ErrRecord},
	} {
		z := &zone{txt: map[string][]string{name: c.records}}
		if list := verifyWith(t, VerifyOptions{Resolver: z}, msg, time.Now()); statuses(list) != string(c.want) || !errors.Is(list[0].Err, c.err) {
			t.Errorf("%s: %+v", text, list)
		}
	}
	z := &zone{txt: map[string][]string{name: {good + "; t=y"}}}
	if list := verifyWith(t, VerifyOptions{Resolver: z}, msg, time.Now()); !list[0].Testing {
		t.Errorf("testing: %+v", list)
	}
	z = &zone{err: errAway}
	if list := verifyWith(t, VerifyOptions{Resolver: z}, msg, time.Now()); statuses(list) != "temperror" || !errors.Is(list[0].Err, errAway) {
		t.Errorf("broken DNS: %+v", list)
	}
}

// TestBounded: many signatures cost few questions and one reading.
func TestBounded(t *testing.T) {
	t.Parallel()
	const msg = "From: a@example.com\r\nSubject: s\r\n\r\nhello\r\n"
	signed := signRaw(t, plainTemplate, msg)
	field := signed[:len(signed)-len(msg)]
	z := ownZone(t)
	list := verifyWith(t, VerifyOptions{Resolver: z}, strings.Repeat(field, 1000)+msg, time.Now())
	if len(list) > 21 || z.n != 1 || list[9].Status != Pass || list[10].Status != Policy || !errors.Is(list[10].Err, ErrTooMany) {
		t.Errorf("%d questions: %+v", z.n, list)
	}
}

func TestUnreadable(t *testing.T) {
	t.Parallel()
	signed := signRaw(t, plainTemplate, "From: a@example.com\r\nSubject: s\r\n\r\nhello\r\n")
	for name, c := range map[string]struct {
		msg string
		err error
	}{
		"bare LF in the body":   {signed + "a\nb", ErrLineEnd},
		"bare LF in the header": {strings.Replace(signed, "s\r\n\r\n", "s\n\r\n", 1), ErrLineEnd},
		"bare LF between them":  {strings.Replace(signed, "\r\n\r\n", "\r\n\n", 1), ErrLineEnd},
		"no field":              {strings.Replace(signed, "\r\nSubject", "\r\nnot a field\r\nSubject", 1), ErrHeader},
	} {
		if list := verifyWith(t, VerifyOptions{Resolver: ownZone(t)}, c.msg, time.Now()); statuses(list) != "neutral" || !errors.Is(list[0].Err, c.err) {
			t.Errorf("%s: %+v", name, list)
		}
	}
}

// TestSameAsAnother changes signed messages at random and compares with go-msgauth. Where they may differ is listed.
func TestSameAsAnother(t *testing.T) {
	t.Parallel()
	r := mrand.New(mrand.NewPCG(1, 2))
	z := ownZone(t)
	v, err := NewVerifier(VerifyOptions{Resolver: z})
	if err != nil {
		t.Fatal(err)
	}
	passed, failed := 0, 0
	var whole []byte
	for i := range 2000 {
		if i%4 == 0 {
			whole = generate(t, r)
		}
		msg := mutate(r, whole)
		if !cleanLines(msg) || msg[0] == ' ' || msg[0] == '\t' {
			continue // it repairs line ends and blanks before the first field, we do not
		}
		ours, err := v.Verify(t.Context(), [][]byte{msg}, time.Now())
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		theirs, err := verify.VerifyWithOptions(bytes.NewReader(msg), &verify.VerifyOptions{LookupTXT: lookup})
		if err != nil {
			for _, o := range ours {
				if o.Status == Pass {
					t.Errorf("%d: it cannot read (%v) what holds here:\n%q", i, err, msg)
				}
			}
			continue
		}
		if len(ours) != len(theirs) {
			t.Errorf("%d: %d signatures here, %d there:\n%q", i, len(ours), len(theirs), msg)
			continue
		}
		for j := range ours {
			o, th := ours[j].Status == Pass, theirs[j].Err == nil
			if o {
				passed++
			} else {
				failed++
			}
			if o != th && !errors.Is(ours[j].Err, ErrHeader) { // it passes over lines that are no fields
				t.Errorf("%d: %s (%v) here, %v there:\n%q", i, ours[j].Status, ours[j].Err, theirs[j].Err, msg)
			}
		}
	}
	if passed < 500 || failed < 500 {
		t.Errorf("%d passed, %d failed: too few to tell anything", passed, failed)
	}
	t.Logf("%d passed, %d failed", passed, failed)
}

// generate makes a signed message, by our signer or by the other one in all its forms.
func generate(t testing.TB, r *mrand.Rand) []byte {
	var b strings.Builder
	b.WriteString("From: ann@example.com\r\n")
	for range r.IntN(5) {
		fmt.Fprintf(&b, "%s:%s%s\r\n", []string{"To", "Subject", "X-Odd", "subject", "Cc"}[r.IntN(5)],
			[]string{"", " ", "  ", "\t", "\r\n "}[r.IntN(5)], []string{"x", "a  b", "a\r\n\tb ", "c\t \r\n d"}[r.IntN(4)])
	}
	b.WriteString("\r\n")
	for range r.IntN(8) {
		b.WriteString([]string{"\r\n", " \r\n", "word", " ", "\t", "two  words \r\n", "\r\n\r\n", "end\r\n", strings.Repeat("long ", 900)}[r.IntN(9)])
	}
	if r.IntN(3) > 0 {
		b.WriteString("\r\n")
	}
	msg := b.String()
	if r.IntN(2) == 0 {
		return sign(t, newSigner(t, Options{}), msg)
	}
	k := keys()[r.IntN(2)]
	form := []verify.Canonicalization{verify.CanonicalizationSimple, verify.CanonicalizationRelaxed}
	var out bytes.Buffer
	if err := verify.Sign(&out, strings.NewReader(msg), &verify.SignOptions{
		Domain: k.Domain, Selector: k.Selector, Signer: k.Signer,
		HeaderCanonicalization: form[r.IntN(2)], BodyCanonicalization: form[r.IntN(2)], HeaderKeys: []string{"From", "Subject", "To", "Subject"},
	}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// mutate changes a message, or not.
func mutate(r *mrand.Rand, msg []byte) []byte {
	msg = bytes.Clone(msg)
	for range r.IntN(3) {
		i := r.IntN(len(msg))
		switch r.IntN(6) {
		case 0:
			msg[i] ^= 1 << r.IntN(7)
		case 1:
			msg = append(msg[:i], msg[i+1:]...)
		case 2:
			msg = append(msg[:i], append([]byte{" \ta;=x:"[r.IntN(7)]}, msg[i:]...)...)
		case 3:
			msg = append(msg, "\r\n"...)
		case 4:
			msg = bytes.Replace(msg, []byte("\r\nTo:"), []byte("\r\nTO:"), 1)
		case 5:
			msg = append([]byte("Received: from x\r\n\tby y\r\n"), msg...)
		}
	}
	return msg
}

// FuzzVerify: nothing passes whose signature or key was not whole, and texts stay printable.
func FuzzVerify(f *testing.F) {
	f.Add([]byte(letter))
	f.Add(sign(f, newSigner(f, Options{}), letter))
	f.Add([]byte(signRaw(f, plainTemplate, "From: a@example.com\r\n\r\nx\r\n")))
	v, err := NewVerifier(VerifyOptions{Resolver: ownZone(f)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		list, err := v.Verify(t.Context(), [][]byte{msg}, time.Now())
		if err != nil {
			return
		}
		for _, r := range list {
			if (r.Status == Pass) != (r.Err == nil) {
				t.Fatalf("%+v", r)
			}
			for _, s := range []string{r.Domain, r.Selector, r.Identity, r.Algorithm, r.B} {
				if strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
					t.Fatalf("%q in %+v", s, r)
				}
			}
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=DKIM1; k=rsa; t=y:s; h=sha256; s=*; p=MIGfMA0=")
	f.Add("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	f.Fuzz(func(t *testing.T, txt string) {
		if r, err := ParseRecord(txt); err == nil && r.Key == nil {
			t.Fatal("neither key nor error")
		}
	})
}

func BenchmarkVerify10KB(b *testing.B) {
	head, _, _ := strings.Cut(letter, "\r\n\r\n")
	body := strings.Repeat("The quick brown fox jumps over the lazy dog, again and again.\r\n", 160)
	msg := sign(b, newSigner(b, Options{}), head+"\r\n\r\n"+body)
	v, err := NewVerifier(VerifyOptions{Resolver: ownZone(b)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		if list, err := v.Verify(b.Context(), [][]byte{msg}, time.Now()); err != nil || list[0].Status != Pass {
			b.Fatal(err, list)
		}
	}
}
