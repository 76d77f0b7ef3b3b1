package smtptest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

// SecureOptions say what comes before the mail of a session.
type SecureOptions struct {
	TLS      *tls.Config // nil: the session stays in the clear
	Implicit bool        // TLS from the first octet, instead of STARTTLS

	// Auth makes the client of one login, given the state of the connection (nil in the clear) and the mechanisms that the
	// server offers. Nil: no login.
	Auth func(state *tls.ConnectionState, offered []string) (sasl.Client, error)

	Hello   string        // empty means load.test
	Timeout time.Duration // for all of it, zero is 30 s
}

// Secure reads the greeting, puts TLS over the connection and logs in. The connection that it returns begins with the
// greeting again, so that a client that knows nothing of all this can go on from there. An error closes nc; nothing of a
// secret is in it.
func Secure(ctx context.Context, nc net.Conn, o SecureOptions) (net.Conn, error) {
	if o.Hello == "" {
		o.Hello = "load.test"
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := nc.SetDeadline(time.Now().Add(o.Timeout)); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	d := &dialog{conn: nc, in: bufio.NewReader(nc)}
	if err := d.secure(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("secure session: %w", err), nc.Close())
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return &greeted{Conn: d.conn, banner: d.banner}, nil
}

// SecureDial wraps a dial function, as that of [LoadOptions], in [Secure].
func SecureDial(dial func(ctx context.Context) (net.Conn, error), o SecureOptions) func(ctx context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		nc, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return Secure(ctx, nc, o)
	}
}

// greeted is a connection whose greeting is read once more.
type greeted struct {
	net.Conn
	mu     sync.Mutex
	banner []byte
}

func (g *greeted) Read(p []byte) (int, error) {
	g.mu.Lock()
	if len(g.banner) > 0 {
		n := copy(p, g.banner)
		g.banner = g.banner[n:]
		g.mu.Unlock()
		return n, nil
	}
	g.mu.Unlock()
	return g.Conn.Read(p)
}

// dialog is what is said before the mail.
type dialog struct {
	conn   net.Conn
	in     *bufio.Reader
	banner []byte
	state  *tls.ConnectionState
}

func (d *dialog) secure(ctx context.Context, o SecureOptions) error {
	if o.TLS != nil && o.Implicit {
		if err := d.handshake(ctx, o.TLS); err != nil {
			return err
		}
	}
	banner, err := d.reply("")
	if err != nil {
		return err
	}
	d.banner = banner.AppendTo(nil)
	if o.TLS != nil && !o.Implicit {
		if _, err := d.say("EHLO", "EHLO "+o.Hello); err != nil {
			return err
		}
		if _, err := d.say("STARTTLS", "STARTTLS"); err != nil {
			return err
		}
		if err := d.handshake(ctx, o.TLS); err != nil {
			return err
		}
	}
	if o.Auth == nil {
		return nil
	}
	hello, err := d.say("EHLO", "EHLO "+o.Hello)
	if err != nil {
		return err
	}
	client, err := o.Auth(d.state, mechanisms(hello.Text))
	if err != nil {
		return err
	}
	return d.login(client)
}

// mechanisms returns those of a reply to EHLO (RFC 4954, 3).
func mechanisms(hello string) []string {
	for line := range strings.SplitSeq(hello, "\n") {
		if words := strings.Fields(strings.ToUpper(line)); len(words) > 0 && words[0] == "AUTH" {
			return words[1:]
		}
	}
	return nil
}

func (d *dialog) handshake(ctx context.Context, config *tls.Config) error {
	if d.in.Buffered() > 0 {
		return errors.New("the server sent something before the handshake")
	}
	conn := tls.Client(d.conn, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	state := conn.ConnectionState()
	d.conn, d.in, d.state = conn, bufio.NewReader(conn), &state
	return nil
}

func (d *dialog) login(c sasl.Client) error {
	mechanism, response, err := c.Start()
	if err != nil {
		return err
	}
	line := "AUTH " + mechanism
	switch {
	case response == nil:
	case len(response) == 0:
		line += " ="
	default:
		line += " " + base64.StdEncoding.EncodeToString(response)
	}
	for {
		r, err := d.say("AUTH", line)
		if err != nil || r.Code != 334 {
			return err
		}
		challenge, err := base64.StdEncoding.DecodeString(r.Text)
		if err != nil {
			return fmt.Errorf("challenge %q: %w", r.Text, err)
		}
		if response, err = c.Next(challenge); err != nil {
			return err
		}
		line = base64.StdEncoding.EncodeToString(response)
	}
}

// say sends a line and wants a reply that is not a refusal. Errors name the verb: the line may be a secret.
func (d *dialog) say(verb, line string) (smtp.Reply, error) {
	if _, err := d.conn.Write([]byte(line + "\r\n")); err != nil {
		return smtp.Reply{}, err
	}
	return d.reply(verb)
}

// reply reads a reply; its enhanced code stays in the text.
func (d *dialog) reply(verb string) (smtp.Reply, error) {
	var r smtp.Reply
	for {
		line, err := d.in.ReadString('\n')
		if err != nil {
			return r, err
		}
		line = strings.TrimSuffix(line, "\r\n")
		if len(line) < 3 || len(line) > longestLine {
			return r, fmt.Errorf("reply to %s: %q", verb, line)
		}
		if _, err := fmt.Sscanf(line[:3], "%03d", &r.Code); err != nil {
			return r, fmt.Errorf("reply to %s: %q", verb, line)
		}
		if r.Text != "" {
			r.Text += "\n"
		}
		r.Text += strings.TrimPrefix(line[min(4, len(line)):], " ")
		if len(line) < 4 || line[3] != '-' {
			break
		}
	}
	if r.Code >= 400 {
		return r, fmt.Errorf("%s is answered with %s", verb, r)
	}
	return r, nil
}
