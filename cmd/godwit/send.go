package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
)

// maxAttachment bounds one attached file in octets; encoded it grows by a third.
const maxAttachment = 100 << 20

// letter is what the flags of "send" say.
type letter struct {
	server, hello       string
	from, envelopeFrom  string
	to, cc, bcc         []string
	subject, text, html string
	files, fields       []string
	raw                 bool
	notify, ret, envid  string
	login               loginFlags
}

func (a *app) sendCommand() *cobra.Command {
	var l letter
	c := &cobra.Command{
		Use:   "send",
		Short: "Compose a message and submit it over SMTP",
		Long: `Compose a message and submit it over SMTP. The text comes from --text or from standard input.
With --raw, standard input is a whole message, header included; it is sent as it is, but for its line ends.
The status is 0 if it was accepted for all recipients.`,
		Example: `  echo "It works." | godwit send --from me@example.com --to you@example.net --subject Hello
  godwit send --from me@example.com --to you@example.net --subject Invoice --text "See attached." --attach invoice.pdf
  godwit send --server mail.example.com:587 --user app --from app@example.com --to you@example.net --text Hello
  godwit send --from me@example.com --to you@example.net --raw --notify success,failure < message.eml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.send(c.Context(), &l) },
	}
	f := c.Flags()
	f.StringVar(&l.server, "server", "127.0.0.1:2525", "submit it to the server at `HOST:PORT`")
	f.StringVar(&l.hello, "hello", "localhost", "`NAME` for EHLO")
	f.StringVar(&l.from, "from", "", "`AUTHOR`, such as \"Ann <ann@example.com>\"")
	f.StringVar(&l.envelopeFrom, "envelope-from", "", "envelope `SENDER`, if not the author; \"<>\" is the null sender")
	f.StringArrayVar(&l.to, "to", nil, "`RECIPIENT`, or some with commas between; may be repeated")
	f.StringArrayVar(&l.cc, "cc", nil, "`RECIPIENT` of a copy; may be repeated")
	f.StringArrayVar(&l.bcc, "bcc", nil, "`RECIPIENT` that the others do not see; may be repeated")
	f.StringVar(&l.subject, "subject", "", "`SUBJECT`")
	f.StringVar(&l.text, "text", "", "plain `TEXT` (default: standard input)")
	f.StringVar(&l.html, "html", "", "`HTML` version of the text")
	f.StringArrayVar(&l.files, "attach", nil, "`FILE` to attach; may be repeated")
	f.StringArrayVar(&l.fields, "header", nil, "further header `FIELD`, \"Name: value\"; may be repeated")
	f.BoolVar(&l.raw, "raw", false, "standard input is a whole message, header included")
	f.StringVar(&l.notify, "notify", "", "report `WHEN`: never, or some of success,failure,delay (RFC 3461)")
	f.StringVar(&l.ret, "return", "", "`WHAT` a report returns of the message: full or headers (RFC 3461)")
	f.StringVar(&l.envid, "envelope-id", "", "`NAME` of the envelope that reports repeat (RFC 3461)")
	l.login.register(c)
	complete(c, "notify", "never", "success", "failure", "delay")
	complete(c, "return", "full", "headers")
	return c
}

// sent is the answer of "send" for programs.
type sent struct {
	Accepted   []string  `json:"accepted"`
	Refused    []refused `json:"refused"`
	Reply      string    `json:"reply"`
	Recipients int       `json:"recipients"`
}

type refused struct {
	Recipient string `json:"recipient"`
	Reply     string `json:"reply"`
}

func (a *app) send(ctx context.Context, l *letter) error {
	if err := checkAddress("--server", l.server); err != nil {
		return err
	}
	secure, err := a.secure(&l.login, l.server)
	if err != nil {
		return err
	}
	t, err := l.transaction(a.input())
	if err != nil {
		return err
	}
	defer t.Body.Release()
	nc, err := dial(ctx, l.server, secure, l.hello)
	if err != nil {
		return explainDial(ctx, "--server", l.server, err)
	}
	conn := smtpclient.New(nc, smtpclient.Options{Hello: l.hello})
	defer conn.Close()
	if err := conn.Start(ctx); err != nil {
		return fmt.Errorf("%s takes no session: %w", l.server, err)
	}
	err = conn.Send(ctx, t)
	res := l.outcome(t, err)
	if err != nil && len(res.Accepted)+len(res.Refused) == 0 {
		return fmt.Errorf("the session with %s broke before the message was accepted: %w", l.server, err)
	}
	if conn.Reusable() {
		// The message is decided; a server that does not answer QUIT changes nothing.
		_ = conn.Quit(ctx)
	}
	err = a.print(res, func(w io.Writer) {
		if len(res.Accepted) > 0 {
			fmt.Fprintf(w, "accepted for %s: %s\n", strings.Join(res.Accepted, ", "), res.Reply)
		}
		for _, r := range res.Refused {
			fmt.Fprintf(w, "refused for %s: %s\n", r.Recipient, r.Reply)
		}
	})
	if err == nil && len(res.Refused) > 0 {
		return errSilent
	}
	return err
}

// outcome tells a transaction in the words of the answer. broken says why the session ended in the middle of it.
func (l *letter) outcome(t *smtpclient.Transaction, broken error) sent {
	res := sent{Recipients: len(t.Recipients), Accepted: []string{}, Refused: []refused{}}
	for i := range t.Result.Recipients {
		r, to := &t.Result.Recipients[i], t.Recipients[i].Path.String()
		switch {
		case r.Status == smtpclient.Delivered:
			res.Accepted = append(res.Accepted, to)
			res.Reply = r.Reply.String()
		case !r.Reply.IsZero():
			res.Refused = append(res.Refused, refused{Recipient: to, Reply: r.Reply.String()})
		case broken == nil:
			res.Refused = append(res.Refused, refused{Recipient: to, Reply: r.Status.String()})
		}
	}
	return res
}

// input is where texts are read from; people at a terminal are told that they are waited for.
func (a *app) input() io.Reader {
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return a.in
	}
	return &prompted{Reader: f, tell: func() {
		fmt.Fprintln(a.err, "Write the text; Ctrl-D on a line of its own ends it.")
	}}
}

// prompted calls tell before the first read.
type prompted struct {
	io.Reader
	tell func()
}

func (p *prompted) Read(b []byte) (int, error) {
	if p.tell != nil {
		p.tell()
		p.tell = nil
	}
	return p.Reader.Read(b)
}

// transaction reads what is to be sent, once the flags are known to be good, and makes envelope and body of it.
func (l *letter) transaction(in io.Reader) (*smtpclient.Transaction, error) {
	rcpts, err := l.recipients()
	if err != nil {
		return nil, err
	}
	from, err := l.sender()
	if err != nil {
		return nil, err
	}
	from.EnvelopeID = l.envid
	switch l.ret {
	case "":
	case "full":
		from.Return = smtp.ReturnFull
	case "headers":
		from.Return = smtp.ReturnHeaders
	default:
		return nil, usagef("--return %q is neither full nor headers", l.ret)
	}
	var raw []byte
	if l.raw {
		if raw, err = io.ReadAll(in); err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
		raw = wireForm(raw)
	} else if raw, err = l.compose(in); err != nil {
		return nil, err
	}
	t := &smtpclient.Transaction{From: from, Recipients: rcpts, Body: smtp.BodyOf(raw)}
	if t.Body.EightBit {
		t.From.Body = smtp.Body8BitMIME
	}
	header, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	t.HeaderUTF8 = !isASCII(header)
	return t, nil
}

func (l *letter) sender() (smtp.Sender, error) {
	if l.envelopeFrom == "<>" {
		return smtp.Sender{}, nil
	}
	if l.envelopeFrom != "" {
		p, err := smtp.ParseMailbox(l.envelopeFrom)
		if err != nil {
			return smtp.Sender{}, usagef("--envelope-from %q: %w", l.envelopeFrom, err)
		}
		return smtp.Sender{Path: p}, nil
	}
	p, err := mailboxes("--from", []string{l.from})
	if err != nil || len(p) == 0 {
		return smtp.Sender{}, errors.Join(err, usagef("--from is needed"))
	}
	return smtp.Sender{Path: p[0]}, nil
}

func (l *letter) recipients() ([]smtp.Recipient, error) {
	var notify smtp.Notify
	if l.notify != "" {
		for word := range strings.SplitSeq(l.notify, ",") {
			switch strings.ToLower(strings.TrimSpace(word)) {
			case "never":
				notify |= smtp.NotifyNever
			case "success":
				notify |= smtp.NotifySuccess
			case "failure":
				notify |= smtp.NotifyFailure
			case "delay":
				notify |= smtp.NotifyDelay
			default:
				return nil, usagef("--notify %q is not never or some of success,failure,delay", l.notify)
			}
		}
	}
	if notify&smtp.NotifyNever != 0 && notify != smtp.NotifyNever {
		return nil, usagef("--notify never goes with nothing else")
	}
	var rcpts []smtp.Recipient
	for _, list := range []struct {
		flag   string
		values []string
	}{{"--to", l.to}, {"--cc", l.cc}, {"--bcc", l.bcc}} {
		paths, err := mailboxes(list.flag, list.values)
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			rcpts = append(rcpts, smtp.Recipient{Path: p, Notify: notify})
		}
	}
	if len(rcpts) == 0 {
		return nil, usagef("at least one recipient is needed: --to you@example.net")
	}
	return rcpts, nil
}

func (l *letter) compose(in io.Reader) ([]byte, error) {
	d := message.Draft{Subject: l.subject, Text: l.text, HTML: l.html, Date: time.Now()}
	for _, list := range []struct {
		flag   string
		values []string
		into   *[]message.Address
	}{{"--from", []string{l.from}, &d.From}, {"--to", l.to, &d.To}, {"--cc", l.cc, &d.Cc}} {
		for _, v := range list.values {
			if v == "" {
				continue // a null sender may have no author
			}
			got, err := message.ParseAddresses(v)
			if err != nil {
				return nil, usagef("%s %q: %w", list.flag, v, err)
			}
			*list.into = append(*list.into, got...)
		}
	}
	for _, f := range l.fields {
		name, value, ok := strings.Cut(f, ":")
		if !ok {
			return nil, usagef("--header %q is not \"Name: value\"", f)
		}
		d.Fields = append(d.Fields, message.ExtraField{Name: name, Value: strings.TrimSpace(value)})
	}
	if d.Text == "" && d.HTML == "" {
		text, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("read text: %w", err)
		}
		d.Text = string(text)
	}
	for _, path := range l.files {
		content, err := readFile(path)
		if err != nil {
			return nil, err
		}
		d.Attachments = append(d.Attachments, message.Attachment{Name: filepath.Base(path), Content: content})
	}
	return d.Compose()
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxAttachment+1))
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	if len(content) > maxAttachment {
		return nil, fmt.Errorf("attach %s: larger than %d MB", path, maxAttachment>>20)
	}
	return content, nil
}

func mailboxes(flag string, values []string) ([]smtp.Path, error) {
	var paths []smtp.Path
	for _, v := range values {
		if v == "" {
			continue
		}
		list, err := message.ParseAddresses(v)
		if err != nil {
			return nil, usagef("%s %q: %w", flag, v, err)
		}
		for _, a := range list {
			paths = append(paths, smtp.Path{Local: a.Local, Domain: a.Domain})
		}
	}
	return paths, nil
}

// wireForm gives every line its CRLF, whatever line ends the input had.
func wireForm(p []byte) []byte {
	s := strings.ReplaceAll(strings.ReplaceAll(string(p), "\r\n", "\n"), "\r", "\n")
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return []byte(strings.ReplaceAll(s, "\n", "\r\n"))
}

func isASCII(s []byte) bool {
	for _, c := range s {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
