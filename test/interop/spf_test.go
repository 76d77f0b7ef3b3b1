//go:build interop

package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	moxdns "github.com/mjl-/mox/dns"
	moxsmtp "github.com/mjl-/mox/smtp"
	moxspf "github.com/mjl-/mox/spf"

	"github.com/godwit-mta/godwit/mailauth/spf"
)

// authZone is one DNS for all checkers. Keys are "TXT example.com".
type authZone struct {
	Records map[string][]string `json:"records"`
	Fail    []string            `json:"fail"`
}

var errServfail = errors.New("SERVFAIL")

func (z *authZone) get(typ, name string) ([]string, error) {
	key := typ + " " + strings.ToLower(strings.TrimSuffix(name, "."))
	if slices.Contains(z.Fail, key) {
		return nil, errServfail
	}
	return z.Records[key], nil
}

func (z *authZone) TXT(_ context.Context, name string) ([]string, error) { return z.get("TXT", name) }
func (z *authZone) MX(_ context.Context, name string) ([]string, error)  { return z.get("MX", name) }
func (z *authZone) PTR(_ context.Context, a netip.Addr) ([]string, error) {
	return z.get("PTR", reversed(a))
}

func (z *authZone) NetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	typ := "A"
	if network == "ip6" {
		typ = "AAAA"
	}
	list, err := z.get(typ, name)
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, err
}

// Exists reports a name that has records, or names below it.
func (z *authZone) Exists(_ context.Context, name string) (bool, error) {
	for k := range z.Records {
		_, n, _ := strings.Cut(k, " ")
		if n == name || strings.HasSuffix(n, "."+name) {
			return true, nil
		}
	}
	return false, nil
}

// reversed is the name of an address in the DNS.
func reversed(a netip.Addr) string {
	var parts []string
	if a.Is4() {
		for _, o := range a.AsSlice() {
			parts = append(parts, fmt.Sprint(o))
		}
	} else {
		for _, c := range fmt.Sprintf("%x", a.AsSlice()) {
			parts = append(parts, string(c))
		}
	}
	slices.Reverse(parts)
	if a.Is4() {
		return strings.Join(parts, ".") + ".in-addr.arpa"
	}
	return strings.Join(parts, ".") + ".ip6.arpa"
}

// mox returns the zone as mox's packages take it.
func (z *authZone) mox() moxdns.MockResolver {
	m := moxdns.MockResolver{
		A: make(map[string][]string), AAAA: make(map[string][]string), TXT: make(map[string][]string), PTR: make(map[string][]string),
		MX: make(map[string][]*net.MX),
	}
	for k, list := range z.Records {
		typ, name, _ := strings.Cut(k, " ")
		switch name += "."; typ {
		case "A":
			m.A[name] = list
		case "AAAA":
			m.AAAA[name] = list
		case "TXT":
			m.TXT[name] = list
		case "MX":
			for _, h := range list {
				m.MX[name] = append(m.MX[name], &net.MX{Host: h + ".", Pref: 10})
			}
		case "PTR":
			for _, c := range spfClients {
				if a := netip.MustParseAddr(c); reversed(a)+"." == name {
					for _, h := range list {
						m.PTR[c] = append(m.PTR[c], h+".")
					}
				}
			}
		}
	}
	for _, f := range z.Fail {
		typ, name, _ := strings.Cut(f, " ")
		m.Fail = append(m.Fail, strings.ToLower(typ)+" "+name+".")
	}
	return m
}

var spfClients = []string{"192.0.2.1", "192.0.2.77", "198.51.100.9", "2001:db8::1", "2001:db8:77::1"}

// spfZone makes a DNS in which domains d0 to d6 of test have policies of all kinds.
func spfZone(r *mrand.Rand) *authZone {
	z := &authZone{Records: make(map[string][]string)}
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	rarely := func(often string, list ...string) string { // most records can be read
		if r.IntN(15) == 0 {
			return pick(list...)
		}
		return often
	}
	host := func() string { return fmt.Sprintf("h%d.test", r.IntN(6)) }
	domain := func() string { return fmt.Sprintf("d%d.test", r.IntN(8)) } // d7 is not there
	for i := range 5 {
		name := fmt.Sprintf("h%d.test", i) // h5 is not there
		for range r.IntN(3) {
			z.Records["A "+name] = append(z.Records["A "+name], pick("192.0.2.1", "192.0.2.77", "198.51.100.9", "203.0.113.5"))
		}
		for range r.IntN(3) {
			z.Records["AAAA "+name] = append(z.Records["AAAA "+name], pick("2001:db8::1", "2001:db8:77::1", "2001:db8:1::5"))
		}
	}
	for _, c := range spfClients {
		for range r.IntN(3) {
			key := "PTR " + reversed(netip.MustParseAddr(c))
			z.Records[key] = append(z.Records[key], pick(host(), "mail.d1.test", "d2.test"))
		}
	}
	z.Records["A mail.d1.test"] = []string{pick("192.0.2.1", "198.51.100.9")}
	z.Records["A ann.d3.test"] = []string{"127.0.0.2"}
	z.Records["A 1.2.0.192.d4.test"] = []string{"127.0.0.2"}
	z.Records["TXT exp.test"] = []string{"%{i} is not ours, %{s}"}
	cidr := func() string {
		return rarely(pick("", "", "/24", "/32", "/0", "//64", "/24//32", "//0"), "/33", "//129", "/024")
	}
	name := func() string {
		return rarely(pick(domain(), domain(), host(), host(), "%{d}", "%{o}", "%{l}.d3.test", "%{ir}.d4.test", "%{d2}", "%{h}", "%{i}.d4.test",
			"%{dr-}.test", "%{l1r+-}.%{d}", "%%.test", "d1.test.", "%{p}", "%{v}.test"), "%{x}.test", "%{d")
	}
	for i := range 7 {
		later := func() string { return fmt.Sprintf("d%d.test", i+1+r.IntN(7-i)) } // mox does not see that redirections lead in a circle
		key := fmt.Sprintf("TXT d%d.test", i)
		for range r.IntN(3) {
			m := fmt.Sprintf("MX d%d.test", i)
			z.Records[m] = append(z.Records[m], host())
		}
		if r.IntN(2) == 0 {
			z.Records[fmt.Sprintf("A d%d.test", i)] = []string{pick("192.0.2.1", "192.0.2.99", "198.51.100.9")}
		}
		var terms []string
		for range r.IntN(6) {
			q := pick("", "", "", "+", "-", "~", "?")
			switch r.IntN(12) {
			case 0, 1:
				terms = append(terms, q+"ip4:"+rarely(pick("192.0.2.1", "192.0.2.0/24", "198.51.100.0/25", "0.0.0.0/0"), "192.0.2", "192.0.2.1/33", "192.0.2.01"))
			case 2:
				terms = append(terms, q+"ip6:"+rarely(pick("2001:db8::1", "2001:db8::/32", "2001:db8:77::/48", "::ffff:192.0.2.1", "::/0"), "2001:db8"))
			case 3, 4:
				terms = append(terms, q+"a"+pick("", ":"+name())+cidr())
			case 5, 6:
				terms = append(terms, q+"mx"+pick("", ":"+name())+cidr())
			case 7:
				terms = append(terms, q+"ptr"+pick("", ":"+name()))
			case 8:
				terms = append(terms, q+"exists:"+name())
			case 9, 10:
				terms = append(terms, q+"include:"+name())
			case 11:
				terms = append(terms, rarely(pick("exp=exp.test", "unknown=x", "A:"+host(), "redirect="+later(), "x-y.z=%{d}"), "foo", "ip4", "all:x", "redirect="))
			}
		}
		switch r.IntN(6) {
		case 0, 1, 2:
			terms = append(terms, pick("-all", "~all", "?all", "all", "-ALL"))
		case 3:
			terms = append(terms, "redirect="+later())
		}
		record := pick("v=spf1", "v=spf1", "v=spf1", "v=spf1", "V=SPF1", "v=spf10", "v=spf1 ") + " " + strings.Join(terms, pick(" ", " ", "  "))
		if len(terms) == 0 {
			record = strings.TrimRight(record, " ")
		}
		z.Records[key] = []string{record}
		switch r.IntN(12) {
		case 0:
			z.Records[key] = append(z.Records[key], "something else")
		case 1:
			z.Records[key] = append(z.Records[key], "v=spf1 -all")
		case 2:
			delete(z.Records, key)
		case 3:
			z.Fail = append(z.Fail, key)
		case 4:
			z.Fail = append(z.Fail, "A "+host(), "AAAA "+host())
		}
	}
	return z
}

// talker is a program that answers lines of JSON.
type talker struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func startTalker(t *testing.T, program string, args ...string) *talker {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
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
	return &talker{t, in, bufio.NewReader(out)}
}

func (p *talker) ask(question, answer any) {
	p.t.Helper()
	if err := json.NewEncoder(p.in).Encode(question); err != nil {
		p.t.Fatal(err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	if err := json.Unmarshal(line, answer); err != nil {
		p.t.Fatalf("%s", line)
	}
}

// TestSPFOthers compares what we find with what pyspf and mox find, in many a DNS.
func TestSPFOthers(t *testing.T) {
	python := "/usr/bin/python3" // Debian's, for which its package is
	need(t, python)
	if exec.Command(python, "-c", "import spf").Run() != nil {
		lack(t, "python3-spf")
	}
	p := startTalker(t, python, "testdata/pyspf.py")
	r := mrand.New(mrand.NewPCG(11, 12))
	sum := make(map[string]int)
	for range 600 {
		z := spfZone(r)
		checker, err := spf.New(spf.Options{Resolver: z})
		if err != nil {
			t.Fatal(err)
		}
		m := z.mox()
		for range 5 {
			client := spfClients[r.IntN(len(spfClients))]
			domain := fmt.Sprintf("d%d.test", r.IntN(7))
			sender := []string{"ann@", "ann@", "", "bob.b-c@"}[r.IntN(4)]
			if sender != "" {
				sender += domain
			}
			helo := []string{domain, "h1.test", "mail.d1.test"}[r.IntN(3)]
			ours := checker.Check(t.Context(), netip.MustParseAddr(client), helo, sender)
			var said [2]string
			p.ask(map[string]any{"zone": z, "client": client, "sender": sender, "helo": helo}, &said)
			pyspf := said[0]
			mox, moxErr := moxSPF(t, m, client, helo, sender)
			sum[string(ours.Status)]++
			status := string(ours.Status)
			theirs, other := pyspfDiffers(z, pyspf, said[1]), moxDiffers(ours.Status, moxErr)
			switch {
			case status == pyspf && status == mox:
				sum["all agree"]++
				continue
			case status != pyspf && theirs == "", status != pyspf && status != mox && other == "":
				t.Errorf("%s (%v) here, %s pyspf (%s), %s mox (%v): %s %q %s\n%s", status, ours.Err, pyspf, said[1], mox, moxErr, client, sender, helo, z)
			case status != pyspf:
				sum["pyspf: "+theirs]++
			case status != mox && other != "":
				sum["mox: "+other]++
			case status != mox:
				sum["mox alone"]++ // pyspf agrees with us
			}
		}
	}
	t.Log(sum)
}

// pyspfDiffers names the known ways in which pyspf differs; empty: none of them.
func pyspfDiffers(z *authZone, status, why string) string {
	switch {
	case strings.Contains(why, "Void lookup limit"):
		// RFC 7208, 4.6.4, counts terms whose query finds nothing; here the addresses of the names that mx and ptr find are no terms.
		// Were they counted, a client with IPv6 would break the policy of each domain whose mail servers have IPv4 alone.
		return "void lookups within a term count"
	case strings.Contains(why, "trivial recursion"):
		return "include of oneself is no syntax" // RFC 7208, 4.6.1: the syntax of the record allows it, and 4.6.4 bounds it
	case status == "temperror" && len(z.Fail) > 0:
		for _, list := range z.Records {
			if slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, "%{p}") || strings.Contains(s, "ptr") }) {
				return "a name of the client that cannot be asked is an error" // RFC 7208, 5.5 and 7.3: it is skipped
			}
		}
	}
	return ""
}

// moxDiffers does the same for mox.
func moxDiffers(ours spf.Status, err error) string {
	switch {
	case err == nil && ours == spf.TempError:
		return "a mail server that cannot be asked is passed over" // RFC 7208, 5: the check ends there, as pyspf has it
	case err == nil:
	case errors.Is(err, moxspf.ErrTooManyVoidLookups):
		return "void lookups within a term count" // as in pyspf
	case errors.Is(err, moxspf.ErrName), strings.Contains(err.Error(), "bad domain name"):
		return "a name that no host can have is an error" // RFC 7208, 4.3 and 7.3: such names are asked for, or do not exist
	}
	return ""
}

func (z *authZone) String() string {
	var b strings.Builder
	for k, list := range z.Records {
		fmt.Fprintf(&b, "\t%s %q\n", k, list)
	}
	lines := strings.SplitAfter(b.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "") + fmt.Sprint("\tfail: ", z.Fail)
}

func moxSPF(t *testing.T, m moxdns.MockResolver, client, helo, sender string) (string, error) {
	t.Helper()
	parse := func(s string) moxdns.Domain {
		d, err := moxdns.ParseDomain(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	args := moxspf.Args{
		RemoteIP: net.ParseIP(client), HelloDomain: moxdns.IPDomain{Domain: parse(helo)}, LocalIP: net.ParseIP("127.0.0.1"), LocalHostname: parse("we.test"),
	}
	if local, domain, ok := strings.Cut(sender, "@"); ok {
		args.MailFromLocalpart, args.MailFromDomain = moxsmtp.Localpart(local), parse(domain)
	}
	got, _, _, _, err := moxspf.Verify(t.Context(), slog.New(slog.DiscardHandler), m, args)
	return string(got.Result), err
}
