package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	s := dnstest.Start(t, `
		good.test.         TXT "v=spf1 ip4:192.0.2.1 -all"
		_dmarc.good.test.  TXT "v=DMARC1; p=reject"
		1.2.0.192.in-addr.arpa. PTR mx.good.test.
		mx.good.test.      A 192.0.2.1
	`)
	file := filepath.Join(t.TempDir(), "message.eml")
	if err := os.WriteFile(file, []byte("From: Ann <ann@news.good.test>\nSubject: hello\n\nhi\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (int, string, string) {
		var out, fault bytes.Buffer
		a := &app{self: "godwit", in: strings.NewReader("From: Ann <ann@good.test>\n\nhi\n"), out: &out, err: &fault}
		code := a.run(t.Context(), append([]string{"verify", "--resolver", s.Addr().String(), "--hostname", "mx.we.test"}, args...))
		return code, out.String(), fault.String()
	}
	code, out, fault := run(file, "--client", "192.0.2.1", "--helo", "mx.good.test", "--from", "ann@good.test")
	const want = `spf    pass       mailfrom=ann@good.test
spf    none       helo=mx.good.test
dkim   none      
dmarc  pass       from=news.good.test p=reject domain=good.test
iprev  pass       iprev=192.0.2.1 (mx.good.test)

verify: reject would take it

Authentication-Results: mx.we.test; spf=pass smtp.mailfrom=ann@good.test;
	spf=none smtp.helo=mx.good.test; dkim=none; dmarc=pass
	header.from=news.good.test polrec.p=reject polrec.domain=good.test;
	iprev=pass (mx.good.test) policy.iprev=192.0.2.1
`
	if code != 0 || out != want || fault != "" {
		t.Errorf("%d %s\n%s\nwant\n%s", code, fault, out, want)
	}
	code, out, _ = run("-", "--json", "--client", "192.0.2.9", "--helo", "x", "--from", "<>")
	var v verified
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if code != 1 || v.Decision != "refused_dmarc" || !strings.HasPrefix(v.Reply, "550 5.7.1 ") || v.Author != "good.test" ||
		v.Short != "spf=none dkim=none dmarc=fail(reject)" || len(v.Results) != 4 || !strings.HasPrefix(v.Field, "Authentication-Results: mx.we.test;") {
		t.Errorf("%d %s", code, out)
	}
	for _, args := range [][]string{
		{}, {file, file}, {file, "--client", "mx"}, {file, "--from", "nobody"}, {file, "--resolver", "dns.test"}, {file, "--hostname", "a b"},
	} {
		if code, out, fault := run(args...); code != 2 || out != "" || fault == "" {
			t.Errorf("%q: %d %s %s", args, code, out, fault)
		}
	}
	if code, _, fault := run("/nowhere"); code != 1 || !strings.Contains(fault, "read message") {
		t.Errorf("%d %s", code, fault)
	}
}
