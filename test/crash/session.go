package crash

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// patience bounds each exchange, so that a server that hangs ends a submission as unknown instead of the campaign.
const patience = 90 * time.Second

// session is one SMTP connection, as simple as can be and with nothing of Godwit in it.
type session struct {
	nc net.Conn
	r  *bufio.Reader
}

// reply is one SMTP reply; text is that of its last line.
type reply struct {
	code int
	text string
}

func (r reply) positive() bool { return r.code/100 == 2 }

// enhanced returns the enhanced status code that the text begins with, if there is one (RFC 2034, 4).
func (r reply) enhanced() string {
	word, _, _ := strings.Cut(r.text, " ")
	if strings.Count(word, ".") != 2 {
		return ""
	}
	return word
}

// dial connects and greets.
func dial(ctx context.Context, address, hello string) (*session, error) {
	d := net.Dialer{Timeout: patience}
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &session{nc: nc, r: bufio.NewReader(nc)}
	for _, command := range []string{"", "EHLO " + hello + "\r\n"} {
		r, err := s.ask(command)
		if err == nil && !r.positive() {
			err = fmt.Errorf("greeting: %d %s", r.code, r.text)
		}
		if err != nil {
			nc.Close()
			return nil, err
		}
	}
	return s, nil
}

// send writes p whole, or says that it was not: then its last octet has not left.
func (s *session) send(p []byte) error {
	if err := s.nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	n, err := s.nc.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// ask sends a command, which may be empty, and reads its reply.
func (s *session) ask(command string) (reply, error) {
	if err := s.send([]byte(command)); err != nil {
		return reply{}, err
	}
	return s.reply()
}

func (s *session) reply() (reply, error) {
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return reply{}, err
		}
		if len(line) < 5 || !strings.HasSuffix(line, "\r\n") {
			return reply{}, fmt.Errorf("no reply: %q", line)
		}
		code := 0
		for _, c := range line[:3] {
			if c < '0' || c > '9' {
				return reply{}, fmt.Errorf("no reply: %q", line)
			}
			code = code*10 + int(c-'0')
		}
		if line[3] != '-' {
			return reply{code, strings.TrimSpace(line[4:])}, nil
		}
	}
}
