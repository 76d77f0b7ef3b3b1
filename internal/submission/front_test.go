package submission_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/certs"
	"github.com/godwit-mta/godwit/internal/doctor"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpserver"
)

// front is a door with the engine before it and a directory behind it, as a daemon has it.
type front struct {
	t         testing.TB
	door      *submission.Door
	server    *smtpserver.Server
	directory *auth.Directory
	tls       bool

	mu      sync.Mutex
	kept    []*spool.Message
	text    []string
	refused []event.Event
}

func (f *front) Accept(_ context.Context, m *spool.Message, body *smtp.Body) error {
	p, err := io.ReadAll(body.Reader())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept, f.text = append(f.kept, m), append(f.text, string(p))
	return err
}

func (f *front) messages() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.kept)
}

func (f *front) last() (*spool.Message, string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.kept) == 0 {
		f.t.Fatal("nothing was accepted")
	}
	return f.kept[len(f.kept)-1], f.text[len(f.text)-1]
}

type frontOptions struct {
	policy submission.Policy
	server smtpserver.Options
	door   func(*submission.Options)
	tls    bool
}

// newFront makes the tenant "shop" with the domain shop.example, below which is *.in.shop.example, and its credential "app" with
// the password below.
func newFront(t testing.TB, o frontOptions) *front {
	t.Helper()
	f := &front{t: t}
	db, err := store.Open(store.Options{Dir: "/store", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	f.directory, err = auth.New(auth.Options{
		Store: db, Hostname: "mx.test", Cost: auth.Cost{MemoryKiB: 8, Passes: 1, Lanes: 1}, ScramIterations: 4096,
		Configured: []auth.ConfiguredTenant{{ID: "shop", Domains: []string{"shop.example", "*.in.shop.example"}}, {ID: "other", Domains: []string{"other.example"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.credential(auth.Credential{Tenant: "shop", Login: "app"})
	if o.policy.MaxAge == 0 {
		o.policy.MaxAge = time.Hour
	}
	do := submission.Options{
		Hostname: "mx.test", Listener: "app", Policy: o.policy, Spool: f, IDs: message.NewIDs(rand.Reader), Directory: f.directory,
		Refused: func(e *event.Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.refused = append(f.refused, *e)
		},
	}
	if o.door != nil {
		o.door(&do)
	}
	if f.door, err = submission.New(do); err != nil {
		t.Fatal(err)
	}
	so := o.server
	so.Hostname, so.Backend = "mx.test", f.door
	if o.tls {
		f.tls = true
		cert, key, err := certs.SelfSigned([]string{"mx.test"}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		so.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	if f.server, err = smtpserver.New(so); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.server.Close() })
	return f
}

const password = "vq7LmW2xTz9RkB4h"

func (f *front) credential(c auth.Credential) string {
	f.t.Helper()
	made, err := f.directory.CreateCredential(f.t.Context(), auth.NewCredential{Credential: c, Password: password})
	if err != nil {
		f.t.Fatal(err)
	}
	return made.Credential.ID
}

// pipe is a connection that claims to come from an address.
type pipe struct {
	net.Conn
	from netip.AddrPort
}

func (p *pipe) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.from) }
func (p *pipe) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:587"))
}

func (f *front) dial(from string) net.Conn {
	ours, theirs := net.Pipe()
	go f.server.ServeConn(context.Background(), &pipe{theirs, netip.AddrPortFrom(netip.MustParseAddr(from), 4000)})
	return ours
}

// client is one SMTP session.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func (f *front) connect(from string) *client {
	f.t.Helper()
	c := &client{t: f.t, conn: f.dial(from)}
	f.t.Cleanup(func() { c.conn.Close() })
	c.in = bufio.NewReader(c.conn)
	c.read()
	if r := c.ask("EHLO app.test"); f.tls && strings.Contains(r, "STARTTLS") {
		c.ask("STARTTLS")
		c.conn = tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
		c.in = bufio.NewReader(c.conn)
		c.ask("EHLO app.test")
	}
	return c
}

func (c *client) read() string {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	var all []string
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return strings.Join(append(all, "closed"), "\n")
		}
		if all = append(all, strings.TrimRight(line, "\r\n")); len(line) < 4 || line[3] != '-' {
			return strings.Join(all, "\n")
		}
	}
}

func (c *client) ask(line string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		return "closed"
	}
	return c.read()
}

func (c *client) login(name, secret string) string {
	return c.ask("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+secret)))
}

// send runs a transaction and returns the first reply that is no acceptance, or the last.
func (c *client) send(from, text string, to ...string) string {
	c.t.Helper()
	if r := c.ask("MAIL FROM:<" + from + ">"); r[0] != '2' {
		return r
	}
	for _, a := range to {
		if r := c.ask("RCPT TO:<" + a + ">"); r[0] != '2' {
			c.ask("RSET")
			return r
		}
	}
	if r := c.ask("DATA"); r[0] != '3' {
		return r
	}
	return c.ask(text + "\r\n.")
}

var everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// TestRelayProbes runs the catalogue's probes (section 2.4) against each way in which a listener may be set up: from an address
// without rights nothing is ever accepted.
func TestRelayProbes(t *testing.T) {
	t.Parallel()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	insecure := auth.Policy{InsecureAuth: true}
	for name, c := range map[string]struct {
		o       frontOptions
		from    string
		preface string
		relay   []string
	}{
		"trusted networks":            {o: frontOptions{policy: submission.Policy{TrustedNetworks: loopback}}},
		"login required":              {o: frontOptions{policy: submission.Policy{Login: submission.LoginRequired, Auth: insecure}}},
		"login required, TLS":         {o: frontOptions{policy: submission.Policy{Login: submission.LoginRequired}, tls: true}},
		"login optional":              {o: frontOptions{policy: submission.Policy{TrustedNetworks: loopback, Login: submission.LoginOptional, Auth: insecure}, tls: true}},
		"relay domains":               {o: frontOptions{policy: submission.Policy{RelayDomains: submission.NewDomains([]string{"in.shop.example"})}}, relay: []string{"in.shop.example"}},
		"relay domains below":         {o: frontOptions{policy: submission.Policy{RelayDomains: submission.NewDomains([]string{"*.shop.example"})}}, relay: []string{"*.shop.example"}},
		"relay domain is the server":  {o: frontOptions{policy: submission.Policy{RelayDomains: submission.NewDomains([]string{"mx.test"})}}, relay: []string{"mx.test"}},
		"PX-5 behind a proxy":         {o: frontOptions{policy: submission.Policy{TrustedNetworks: everywhere}, server: smtpserver.Options{Proxies: loopback}}, from: "127.0.0.1", preface: "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"},
		"28 mapped loopback":          {o: frontOptions{policy: submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}, from: "::ffff:127.0.0.1"},
		"XC-1 XCLIENT for a listed":   {o: frontOptions{policy: submission.Policy{TrustedNetworks: loopback}, server: smtpserver.Options{XClient: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}},
		"refused before the greeting": {o: frontOptions{policy: submission.Policy{TrustedNetworks: everywhere}, server: smtpserver.Options{Allow: loopback}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, c.o)
			if c.from == "" {
				c.from = "198.51.100.7"
			}
			r, err := doctor.Relay(t.Context(), doctor.Target{
				Name: name, Hostname: "mx.test", Address: "192.0.2.1", Ours: "shop.example", RelayDomains: c.relay, Preface: c.preface,
				Dial: func(context.Context) (net.Conn, error) { return f.dial(c.from), nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			if want := len(doctor.Probes()) - 2; r.Probes < want {
				t.Errorf("%d probes, want %d", r.Probes, want)
			}
			for _, open := range r.Open {
				// What is for the relay domain itself is not for a stranger's domain.
				t.Errorf("probe %s, %s: %s", open.Probe.ID, open.Probe.What, open.Reply)
			}
			if n := f.messages(); n > 0 {
				t.Errorf("%d messages were accepted", n)
			}
		})
	}
}

// TestRelayProbesFind: the same probes find a listener that is open.
func TestRelayProbesFind(t *testing.T) {
	t.Parallel()
	f := newFront(t, frontOptions{policy: submission.Policy{TrustedNetworks: everywhere}})
	r, err := doctor.Relay(t.Context(), doctor.Target{
		Name: "open", Hostname: "mx.test", Address: "192.0.2.1", Ours: "shop.example",
		Dial: func(context.Context) (net.Conn, error) { return f.dial("198.51.100.7"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Open) < 25 {
		t.Errorf("only %d of %d probes see an open relay", len(r.Open), r.Probes)
	}
	if f.messages() > 0 {
		t.Error("a probe sent a message")
	}
}

// TestLogin is the road of a client that logs in: its tenant owns the mail, and the trace says how it came.
func TestLogin(t *testing.T) {
	t.Parallel()
	f := newFront(t, frontOptions{policy: submission.Policy{Login: submission.LoginRequired, Tenant: "nobody"}, tls: true})
	c := f.connect("198.51.100.7")
	if r := c.ask("MAIL FROM:<a@shop.example>"); !strings.HasPrefix(r, "530 5.7.0") {
		t.Errorf("before the login: %s", r)
	}
	if r := c.login("app", "wrong"); !strings.HasPrefix(r, "535 5.7.8") {
		t.Errorf("wrong password: %s", r)
	}
	if r := c.ask("MAIL FROM:<a@shop.example>"); !strings.HasPrefix(r, "530 5.7.0") {
		t.Errorf("after a failed login: %s", r)
	}
	if r := c.login("app", password); !strings.HasPrefix(r, "235 2.7.0") {
		t.Fatal(r)
	}
	if r := c.send("a@shop.example", "From: a@shop.example\r\nSubject: x\r\n\r\nhi", "u@far.example", "v@far.example"); !strings.HasPrefix(r, "250 2.0.0") {
		t.Fatal(r)
	}
	m, text := f.last()
	if m.Tenant != "shop" || m.Protocol != "ESMTPSA" || m.Queues[0].Tenant != "shop" {
		t.Errorf("message %+v", m)
	}
	if !strings.Contains(text, "\r\n\tby mx.test with ESMTPSA id ") {
		t.Errorf("trace %q", text)
	}
}

// TestRevocationIsImmediate: an open session ends with its credential.
func TestRevocationIsImmediate(t *testing.T) {
	t.Parallel()
	f := newFront(t, frontOptions{policy: submission.Policy{Login: submission.LoginRequired, Auth: auth.Policy{InsecureAuth: true}}})
	for _, when := range []string{"MAIL", "DATA"} {
		id := f.credential(auth.Credential{Tenant: "shop", Login: "gone-" + strings.ToLower(when)})
		c := f.connect("198.51.100.7")
		if r := c.login("gone-"+strings.ToLower(when), password); r[0] != '2' {
			t.Fatal(r)
		}
		if when == "DATA" {
			c.ask("MAIL FROM:<a@shop.example>")
			c.ask("RCPT TO:<u@far.example>")
			c.ask("DATA")
		}
		if _, err := f.directory.RevokeCredential(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		line := "MAIL FROM:<a@shop.example>"
		if when == "DATA" {
			line = "From: a@shop.example\r\n\r\nhi\r\n."
		}
		if r := c.ask(line); !strings.HasPrefix(r, "421 4.7.0") {
			t.Errorf("%s after the revocation: %s", when, r)
		}
	}
	if f.messages() > 0 {
		t.Error("a message was accepted")
	}
}

// TestRelayDomains: strangers may send to them, and to nothing else in the same message.
func TestRelayDomains(t *testing.T) {
	t.Parallel()
	f := newFront(t, frontOptions{policy: submission.Policy{
		RelayDomains: submission.NewDomains([]string{"in.example", "*.below.example"}), TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	}})
	for to, want := range map[string]string{
		"u@in.example": "250", "U@IN.example": "250", "u@x.below.example": "250", "u@a.b.below.example": "250",
		"u@below.example": "550 5.7.1", "u@xin.example": "550 5.7.1", "u@x.in.example": "550 5.7.1", "u@notbelow.example": "550 5.7.1",
		"u%far.example@in.example": "550 5.7.1", "far.example!u@in.example": "550 5.7.1", `"u@far.example"@in.example`: "550 5.7.1",
		"u@far.example": "550 5.7.1", "postmaster": "550 5.7.1",
	} {
		c := f.connect("198.51.100.7")
		if r := c.send("a@far.example", "Subject: x\r\n\r\nhi", to); !strings.HasPrefix(r, want) {
			t.Errorf("%s: %s, want %s", to, r, want)
		}
	}
	c := f.connect("10.0.0.1")
	if r := c.send("a@far.example", "Subject: x\r\n\r\nhi", "u%x@in.example", "u@far.example"); r[:3] != "250" {
		t.Errorf("trusted: %s", r)
	}
}

// TestTrustIsNotClaimed is PX-5: the address that a proxy names gives no right, and that of a direct client does.
func TestTrustIsNotClaimed(t *testing.T) {
	t.Parallel()
	f := newFront(t, frontOptions{
		policy: submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		server: smtpserver.Options{Proxies: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}, XClient: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")}},
	})
	for name, c := range map[string]struct{ from, first, want string }{
		"direct":               {"10.0.0.1", "", "250"},
		"proxy":                {"10.9.0.1", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", "550 5.7.1"},
		"proxy, its own":       {"10.9.0.1", "PROXY UNKNOWN\r\n", "250"},
		"XCLIENT":              {"10.8.0.1", "XCLIENT ADDR=10.0.0.1 LOGIN=app\r\n", "550 5.7.1"},
		"XCLIENT, not claimed": {"10.8.0.1", "", "250"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := f.dial(c.from)
			defer conn.Close()
			cl := &client{t: t, conn: conn, in: bufio.NewReader(conn)}
			if strings.HasPrefix(c.first, "PROXY") {
				fmt.Fprint(conn, c.first)
			}
			cl.read()
			cl.ask("EHLO x.test")
			if strings.HasPrefix(c.first, "XCLIENT") {
				if r := cl.ask(strings.TrimSpace(c.first)); r[:3] != "220" {
					t.Fatal(r)
				}
				cl.ask("EHLO x.test")
			}
			if r := cl.send("a@far.example", "Subject: x\r\n\r\nhi", "u@far.example"); !strings.HasPrefix(r, c.want) {
				t.Errorf("%s, want %s", r, c.want)
			}
		})
	}
}

// TestPX1 is PX-1: a header from somebody who is no proxy ends the connection without a word.
func TestPX1(t *testing.T) {
	t.Parallel()
	f := newFront(t, frontOptions{
		policy: submission.Policy{TrustedNetworks: everywhere}, server: smtpserver.Options{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	})
	conn := f.dial("198.51.100.7")
	defer conn.Close()
	if _, err := io.WriteString(conn, "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"); err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: conn, in: bufio.NewReader(conn)}
	if r := c.read(); r != "closed" {
		t.Errorf("%q", r)
	}
}
