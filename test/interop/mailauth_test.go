//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	moxdkim "github.com/mjl-/mox/dkim"
	moxdns "github.com/mjl-/mox/dns"

	"github.com/godwit-mta/godwit/mailauth/arc"
	"github.com/godwit-mta/godwit/mailauth/authres"
	"github.com/godwit-mta/godwit/mailauth/dkim"
)

// dkimpy is the verifier of Debian's python3-dkim.
type dkimpy struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

// question is what mailauth.py is asked.
type question struct {
	Do      string   `json:"do"`
	Message []byte   `json:"message"`
	Key     string   `json:"key,omitempty"`
	Form    []string `json:"form,omitempty"`
	Length  bool     `json:"length"`
}

func (p *dkimpy) ask(q question, answer any) {
	p.t.Helper()
	line, err := json.Marshal(q)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		p.t.Fatal(err)
	}
	line, err = p.out.ReadBytes('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	if err := json.Unmarshal(line, answer); err != nil {
		p.t.Fatalf("%s: %s", q.Do, line)
	}
}

// signers are keys that everybody here signs with, and their records.
type signers struct {
	rsa, ed *dkim.Key
	pem     string
	dns     map[string]string
}

func (s *signers) TXT(_ context.Context, name string) ([]string, error) {
	if txt := s.dns[name]; txt != "" {
		return []string{txt}, nil
	}
	return nil, nil
}

func makeSigners(t *testing.T) *signers {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pub, e, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &signers{pem: string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(r)}))}
	if s.rsa, err = dkim.NewKey(dkim.KeyOptions{Domain: "example.com", Selector: "s1", Signer: r}); err != nil {
		t.Fatal(err)
	}
	if s.ed, err = dkim.NewKey(dkim.KeyOptions{Domain: "example.com", Selector: "s2", Signer: e}); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(r.Public())
	if err != nil {
		t.Fatal(err)
	}
	s.dns = map[string]string{
		"s1._domainkey.example.com": "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der),
		"s2._domainkey.example.com": "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub),
	}
	return s
}

func startDkimpy(t *testing.T, s *signers) *dkimpy {
	t.Helper()
	python := "/usr/bin/python3" // Debian's, for which its package is
	need(t, python)
	if exec.Command(python, "-c", "import dkim, nacl").Run() != nil {
		lack(t, "python3-dkim")
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/mailauth.py")
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // killed by its context, or done
	})
	if err := json.NewEncoder(in).Encode(s.dns); err != nil {
		t.Fatal(err)
	}
	return &dkimpy{t, in, bufio.NewReader(out)}
}

// unsigned makes a message.
func unsigned(r *mrand.Rand) []byte {
	var b strings.Builder
	b.WriteString("From: ann@example.com\r\nDate: Sun, 22 Nov 2026 01:02:03 +0000\r\n")
	for range r.IntN(5) {
		fmt.Fprintf(&b, "%s:%s%s\r\n", []string{"To", "Subject", "X-Odd", "subject", "Cc"}[r.IntN(5)],
			[]string{" ", "  ", "\t", "\r\n "}[r.IntN(4)], []string{"x", "a  b", "a\r\n\tb ", "c\t \r\n d"}[r.IntN(4)])
	}
	b.WriteString("\r\n")
	for range r.IntN(8) {
		b.WriteString([]string{"\r\n", " \r\n", "word", " ", "\t", "two  words \r\n", "\r\n\r\n", "end\r\n"}[r.IntN(8)])
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// changed changes a message here and there, or not; its line ends stay whole.
func changed(r *mrand.Rand, msg []byte) []byte {
	for range r.IntN(3) {
		i := 1 + r.IntN(len(msg)-1)
		next := bytes.Clone(msg)
		switch r.IntN(4) {
		case 0:
			next[i] ^= 1 << r.IntN(5)
		case 1:
			next = append(next[:i], next[i+1:]...)
		case 2:
			next = append(next[:i], append([]byte{" \ta;=x"[r.IntN(6)]}, next[i:]...)...)
		case 3:
			next = append(next, "\r\n"...)
		}
		if whole(next) {
			msg = next
		}
	}
	return msg
}

// whole reports whether each CR has its LF, and each line of the header is a field: here programs repair in different ways.
func whole(msg []byte) bool {
	rest := bytes.ReplaceAll(msg, []byte("\r\n"), nil)
	if bytes.ContainsAny(rest, "\r\n\x00\x0b\x0c") {
		return false
	}
	head, _, ok := bytes.Cut(msg, []byte("\r\n\r\n"))
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, _, colon := bytes.Cut(line, []byte(":"))
		folded := line[0] == ' ' || line[0] == '\t'
		if folded && len(bytes.TrimSpace(line)) == 0 || !folded && (!colon || len(name) == 0 || bytes.ContainsAny(name, " \t;=")) {
			return false
		}
	}
	return ok
}

func moxDKIM(t *testing.T, s *signers, msg []byte) []moxdkim.Result {
	t.Helper()
	m := moxdns.MockResolver{TXT: make(map[string][]string)}
	for name, txt := range s.dns {
		m.TXT[name+"."] = []string{txt}
	}
	every := func(*moxdkim.Sig) error { return nil }
	list, err := moxdkim.Verify(t.Context(), slog.New(slog.DiscardHandler), m, true, every, bytes.NewReader(msg), true)
	if err != nil {
		t.Fatalf("%v:\n%q", err, msg)
	}
	return list
}

// TestDKIMOthers compares signatures with those of dkimpy: each signs, both and mox verify, whole and changed.
func TestDKIMOthers(t *testing.T) {
	s := makeSigners(t)
	p := startDkimpy(t, s)
	signer, err := dkim.New(dkim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := dkim.NewVerifier(dkim.VerifyOptions{Resolver: s})
	if err != nil {
		t.Fatal(err)
	}
	r := mrand.New(mrand.NewPCG(5, 6))
	forms := []string{"simple", "relaxed"}
	sum := make(map[string]int)
	var msg []byte
	for i := range 1200 {
		if i%6 == 0 {
			plain := unsigned(r)
			by := "us"
			if i/6%2 == 0 {
				by = "dkimpy"
				var field []byte
				p.ask(question{Do: "sign", Message: plain, Key: s.pem, Form: []string{forms[r.IntN(2)], forms[r.IntN(2)]}}, &field)
				msg = append(field, plain...)
			} else {
				fields, err := signer.Sign(nil, [][]byte{plain}, []*dkim.Key{s.rsa, s.ed}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				msg = append(fields, plain...)
			}
			sum["signed by "+by]++
			ours, err := verifier.Verify(t.Context(), [][]byte{msg}, time.Now())
			if err != nil || len(ours) == 0 || ours[0].Status != dkim.Pass {
				t.Errorf("signed by %s: %v %+v\n%q", by, err, ours, msg)
			}
		}
		next := changed(r, msg)
		var theirs []bool
		p.ask(question{Do: "verify", Message: next}, &theirs)
		ours, err := verifier.Verify(t.Context(), [][]byte{next}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if len(ours) != len(theirs) {
			t.Errorf("%d signatures here, %d there:\n%q", len(ours), len(theirs), next)
			continue
		}
		mox := moxDKIM(t, s, next)
		if len(mox) != len(ours) {
			t.Errorf("%d signatures here, %d with mox:\n%q", len(ours), len(mox), next)
			continue
		}
		for j, o := range ours {
			sum[fmt.Sprintf("pass=%v", o.Status == dkim.Pass)]++
			if (o.Status == dkim.Pass) != theirs[j] || (o.Status == dkim.Pass) != (mox[j].Status == moxdkim.StatusPass) {
				t.Errorf("%d: %s (%v) here, %v dkimpy, %s (%v) mox:\n%q", j, o.Status, o.Err, theirs[j], mox[j].Status, mox[j].Err, next)
			}
		}
	}
	t.Log(sum)
}

// unpadded is a signature of which a "=" at the end is gone: RFC 2045, 6.8, wants it, OpenDKIM does without.
const unpadded = "neutral, not base64"

// TestOpenDKIM compares what opendkim-testmsg makes of our signatures. It asks the system's resolver, so it gets a network of its
// own, in which an unbound has the keys.
func TestOpenDKIM(t *testing.T) {
	need(t, "opendkim-testmsg", "unbound", "unshare", "ip")
	if os.Getuid() != 0 {
		lack(t, "a network of its own for opendkim-testmsg")
	}
	s := makeSigners(t)
	signer, err := dkim.New(dkim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := dkim.NewVerifier(dkim.VerifyOptions{Resolver: s})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	record := s.dns["s1._domainkey.example.com"]
	write(t, filepath.Join(dir, "unbound.conf"), fmt.Sprintf(`server:
	chroot: ""
	directory: %q
	username: ""
	pidfile: %q
	use-syslog: no
	interface: 127.0.0.1
	do-daemonize: no
	local-zone: "example.com." static
	local-data: 's1._domainkey.example.com. TXT "%s" "%s"'
`, dir, filepath.Join(dir, "pid"), record[:200], record[200:]))
	write(t, filepath.Join(dir, "resolv.conf"), "nameserver 127.0.0.1\n")
	r := mrand.New(mrand.NewPCG(9, 10))
	var want []string
	for i := range 1000 {
		plain := unsigned(r)
		fields, err := signer.Sign(nil, [][]byte{plain}, []*dkim.Key{s.rsa}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		msg := append(fields, plain...)
		if i%2 == 1 {
			msg = changed(r, msg)
		}
		ours, err := verifier.Verify(t.Context(), [][]byte{msg}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		verdict := "none"
		if len(ours) > 0 {
			verdict = string(ours[0].Status)
			if errors.Is(ours[0].Err, dkim.ErrSyntax) && strings.Contains(ours[0].Err.Error(), "not base64") {
				verdict = unpadded
			}
		}
		want = append(want, verdict)
		write(t, filepath.Join(dir, fmt.Sprintf("%04d.eml", i)), string(msg))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "testdata/opendkim.sh", dir)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sum := make(map[string]int)
	for line := range strings.Lines(string(out)) {
		name, said, _ := strings.Cut(strings.TrimSpace(line), " ")
		i, err := strconv.Atoi(strings.TrimSuffix(name, ".eml"))
		if err != nil || i >= len(want) {
			t.Fatalf("%q", line)
		}
		status, why, _ := strings.Cut(said, " ")
		sum[want[i]+" here, "+status+" there"]++
		odd := strings.Contains(why, "Syntax error") || want[i] == "none" || want[i] == unpadded // it wants every field once; it has no error for no signature
		if (want[i] == "pass") != (status == "0") && !odd {
			t.Errorf("%s: %s here, %s there", name, want[i], said)
		}
	}
	if sum["pass here, 0 there"] < 160 {
		t.Errorf("%v\n%s", sum, out)
	}
	t.Log(sum)
}

// TestARCOthers compares chains with dkimpy's: both seal in turn, both verify.
func TestARCOthers(t *testing.T) {
	s := makeSigners(t)
	p := startDkimpy(t, s)
	sealer, err := arc.NewSealer(dkim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := arc.New(arc.Options{Resolver: s})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(msg []byte) arc.Chain {
		c, err := verifier.Verify(t.Context(), [][]byte{msg}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	r := mrand.New(mrand.NewPCG(7, 8))
	sum := make(map[string]int)
	for range 15 {
		msg := unsigned(r)
		for i := range 4 {
			if i%2 == 0 {
				fields, err := sealer.Seal(nil, [][]byte{msg}, verify(msg), "mx.example.com", []authres.Result{
					{Method: "arc", Value: string(verify(msg).Status)},
				}, s.rsa, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				msg = append(fields, msg...)
			} else {
				ar, err := authres.Append(nil, "relay.example", []authres.Result{{Method: "arc", Value: "pass"}})
				if err != nil {
					t.Fatal(err)
				}
				var fields []byte // what it found out is told by a field that does not stay: it would take all that there are
				p.ask(question{Do: "seal", Message: append(ar, msg...), Key: s.pem}, &fields)
				msg = append(fields, msg...)
			}
			for j := range 3 {
				next := msg
				if j > 0 {
					next = changed(r, msg)
				}
				var theirs []string
				p.ask(question{Do: "arc", Message: next}, &theirs)
				ours := verify(next)
				sum[string(ours.Status)]++
				if (ours.Status == arc.Pass) != (theirs[0] == "pass") { // it has "none" for some broken chains
					t.Errorf("%s (%v) here, %q there:\n%q", ours.Status, ours.Err, theirs, next)
				}
				if j == 0 && ours.Status != arc.Pass {
					t.Errorf("sealed %d times: %+v\n%s", i+1, ours, msg)
				}
			}
		}
	}
	t.Log(sum)
}
