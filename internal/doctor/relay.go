// Package doctor looks at the server from outside, as a stranger would, and says what is wrong with it.
//
// [Relay] tries whether a listener can be misused to send mail: it connects without any right and tries the ways in which relays
// have been opened, from the plain foreign recipient to percent hacks, source routes, claims of XCLIENT and commands put
// into one packet. Nothing is ever sent: a probe ends as soon as a recipient is accepted, and says so.
//
//	report := doctor.Relay(ctx, doctor.Target{Name: "submission", Dial: dial, Hostname: "mta1.example.com", Address: "192.0.2.1"})
//	for _, f := range report.Open { ... }
package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// Target is a listener to be tried. Name, Dial and Hostname are required.
type Target struct {
	Name     string
	Dial     func(ctx context.Context) (net.Conn, error) // to the listener, as a client without rights
	Implicit bool                                        // the connection begins with a TLS handshake
	Preface  string                                      // sent first: a PROXY header, where the listener wants one

	Hostname     string   // of the server
	Address      string   // the server's own IP address, without brackets or tag
	Ours         string   // a domain that the server hosts or a tenant owns; empty: Hostname
	RelayDomains []string // domains that anyone may send to, as config.Listener has them

	From, Note string // for people: whence it is tried, and what limits the meaning of the result

	Timeout time.Duration // for each reply; 0 is 5 s
}

// Finding is a probe that was let through.
type Finding struct {
	Probe *Probe
	Reply string // the reply that should have been a refusal
}

// Report is what was found at one listener.
type Report struct {
	Probes int
	Open   []Finding
}

// foreign is a domain that nobody hosts and no mail can go to (RFC 6761, 6.4).
const foreign = "relay-probe.invalid"

// Relay tries all probes, each in a session of its own. The error says that the listener could not be tried.
func Relay(ctx context.Context, t Target) (Report, error) {
	if t.Timeout == 0 {
		t.Timeout = 5 * time.Second
	}
	if t.Ours == "" {
		t.Ours = t.Hostname
	}
	var r Report
	for i := range probes {
		p := &probes[i]
		if p.needsRelayDomain && len(t.RelayDomains) == 0 {
			continue
		}
		reply, open, err := t.try(ctx, p)
		if err != nil {
			return r, fmt.Errorf("probe %s: %w", p.ID, err)
		}
		r.Probes++
		if open {
			r.Open = append(r.Open, Finding{Probe: p, Reply: reply})
		}
	}
	return r, nil
}

// errClosed says that the server ended the session, which is a good answer to a probe.
var errClosed = errors.New("the server closed the connection")

// try runs one probe. A refusal at any step, or a closed connection, is what should happen.
func (t *Target) try(ctx context.Context, p *Probe) (reply string, open bool, err error) {
	conn, err := t.Dial(ctx)
	if err != nil {
		return "", false, fmt.Errorf("connect: %w", err)
	}
	d := &dialog{conn: conn, timeout: t.Timeout}
	defer conn.Close() // not TLS's, which would say goodbye and wait
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	reply, open, err = d.run(ctx, t, p)
	switch {
	case ctx.Err() != nil:
		return "", false, context.Cause(ctx)
	case errors.Is(err, errClosed):
		return "", false, nil
	}
	return reply, open, err
}

// dialog is one session of a probe.
type dialog struct {
	conn    net.Conn
	in      *bufio.Reader
	timeout time.Duration
}

func (d *dialog) run(ctx context.Context, t *Target, p *Probe) (string, bool, error) {
	if err := d.write(t.Preface); err != nil {
		return "", false, err
	}
	if t.Implicit {
		if err := d.handshake(ctx, t); err != nil {
			return "", false, err
		}
	}
	d.in = bufio.NewReader(d.conn)
	greeting, err := d.ask(p.preface)
	if err != nil || greeting.Code != 220 {
		return "", false, err
	}
	hello, err := d.ask("EHLO " + t.fill(p.hello()) + "\r\n")
	if err == nil && p.preface != "" && hello.Code >= 400 {
		hello, err = d.reply() // that was what it thinks of the words before EHLO
	}
	if err != nil {
		return "", false, err
	}
	if p.startTLS {
		if !strings.Contains(hello.Text, "STARTTLS") {
			return "", false, nil
		}
		if r, err := d.ask("STARTTLS\r\n"); err != nil || r.Code != 220 {
			return "", false, err
		}
		if err := d.handshake(ctx, t); err != nil {
			return "", false, err
		}
		d.in = bufio.NewReader(d.conn)
		if _, err := d.ask("EHLO " + t.fill(p.hello()) + "\r\n"); err != nil {
			return "", false, err
		}
	}
	return d.steps(t, p)
}

// steps sends the commands of a probe. Those that must be refused and are not make a finding.
func (d *dialog) steps(t *Target, p *Probe) (string, bool, error) {
	for _, s := range p.steps {
		var text strings.Builder
		for i := range s {
			text.WriteString(t.fill(s[i].send) + "\r\n")
		}
		list, err := d.exchange(text.String(), len(s))
		if err != nil {
			return "", false, err
		}
		for i, r := range list {
			if s[i].refused && r.Positive() {
				return r.String(), true, nil // and no further: nothing is ever sent
			}
		}
	}
	_, err := d.ask("QUIT\r\n")
	return "", false, err
}

func (d *dialog) handshake(ctx context.Context, t *Target) error {
	c := tls.Client(d.conn, &tls.Config{InsecureSkipVerify: true, ServerName: t.Hostname}) // it is ourselves
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("TLS handshake: %w", err)
		}
		return errClosed // such as a client certificate that is missing
	}
	d.conn = c
	return nil
}

func (d *dialog) write(text string) error {
	if text == "" {
		return nil
	}
	if err := d.conn.SetWriteDeadline(time.Now().Add(d.timeout)); err != nil {
		return errClosed
	}
	if _, err := d.conn.Write([]byte(text)); err != nil {
		return errClosed
	}
	return nil
}

// exchange sends text and reads n replies. It does both at once, since a server that is answering need not be reading.
func (d *dialog) exchange(text string, n int) ([]smtp.Reply, error) {
	said := make(chan error, 1)
	go func() { said <- d.write(text) }()
	list := make([]smtp.Reply, 0, n)
	for range n {
		r, err := d.reply()
		if err != nil {
			d.conn.Close() // ends the write
			<-said
			return nil, err
		}
		list = append(list, r)
	}
	return list, <-said
}

func (d *dialog) ask(text string) (smtp.Reply, error) {
	list, err := d.exchange(text, 1)
	if err != nil {
		return smtp.Reply{}, err
	}
	return list[0], nil
}

// maxReplyLines bounds a reply.
const maxReplyLines = 100

func (d *dialog) reply() (smtp.Reply, error) {
	var r smtp.Reply
	var text []string
	for range maxReplyLines {
		if err := d.conn.SetReadDeadline(time.Now().Add(d.timeout)); err != nil {
			return r, errClosed
		}
		line, err := d.in.ReadSlice('\n')
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return r, fmt.Errorf("no reply within %v", d.timeout)
		case err != nil:
			return r, errClosed
		case len(line) < 4 || line[0] < '2' || line[0] > '5':
			return r, errors.New("the reply is not SMTP")
		}
		r.Code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
		text = append(text, strings.TrimRight(string(line[4:]), "\r\n"))
		if line[3] == ' ' {
			r.Text = strings.Join(text, "\n")
			return r, nil
		}
	}
	return r, errors.New("the reply does not end")
}

// fill puts the target's own names into a command.
func (t *Target) fill(line string) string {
	if !strings.Contains(line, "{") {
		return line
	}
	literal := t.Address
	if strings.Contains(literal, ":") {
		literal = "IPv6:" + literal
	}
	relay := ""
	if len(t.RelayDomains) > 0 {
		relay = strings.Replace(t.RelayDomains[0], "*.", "x.", 1)
	}
	return strings.NewReplacer("{ours}", t.Ours, "{dest}", foreign, "{DEST}", strings.ToUpper(foreign), "{srv}", t.Hostname,
		"{ip}", literal, "{relay}", relay).Replace(line)
}
