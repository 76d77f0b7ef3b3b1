package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// loadFlags are the flags of "load" that are not options of the generator as they are.
type loadFlags struct {
	o          smtptest.LoadOptions
	from, to   string
	recipients int
	domains    int
	login      loginFlags
}

func (a *app) loadCommand() *cobra.Command {
	var f loadFlags
	c := &cobra.Command{
		Use:   "load",
		Short: "Send many messages and tell rate and latency",
		Long: `Send many messages over many sessions to a server of your own, and tell rate and latency. In --from and
--to a # becomes the number of the message, and a % that number modulo --domains.
The status is 0 if all were accepted.`,
		Example: `  godwit load --address 127.0.0.1:2525 --messages 10000 --size 10240 --sessions 50 --to user@sink.example
  godwit load --address 127.0.0.1:587 --user app --password-file secret --ca cert.pem --from app@example.com
  godwit load --address 127.0.0.1:2525 --messages 1000 --rate 100 --domains 20 --to user#@d%.example --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.load(c.Context(), &f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.o.Address, "address", "127.0.0.1:2525", "server to send to, `HOST:PORT`")
	fl.IntVar(&f.o.Messages, "messages", 1000, "send `N` messages")
	fl.IntVar(&f.o.Size, "size", 10240, "`OCTETS` of each message, header included")
	fl.IntVar(&f.o.Sessions, "sessions", 10, "keep `N` sessions open at once")
	fl.IntVar(&f.o.MessagesPerSession, "messages-per-session", 0, "replace a session after `N` messages; 0: never")
	fl.Float64Var(&f.o.Rate, "rate", 0, "begin `N` messages in a second; 0: as many as the server takes")
	fl.StringVar(&f.from, "from", "load@client.example", "envelope `SENDER`; a # is the number of the message")
	fl.StringVar(&f.to, "to", "user#@sink.example", "envelope `RECIPIENT`; a # is the number of the message")
	fl.IntVar(&f.recipients, "recipients", 1,
		"send each message to `N` recipients; +1, +2 ... tell them apart")
	fl.IntVar(&f.domains, "domains", 1, "let a % in --to run through `N` numbers")
	fl.BoolVar(&f.o.LMTP, "lmtp", false, "speak LMTP")
	f.login.register(c)
	return c
}

func (f *loadFlags) expand(pattern string, i int) string {
	s := strings.ReplaceAll(pattern, "#", strconv.Itoa(i))
	return strings.ReplaceAll(s, "%", strconv.Itoa(i%max(f.domains, 1)))
}

func (f *loadFlags) validate() error {
	for name, n := range map[string]int{"messages": f.o.Messages, "sessions": f.o.Sessions, "recipients": f.recipients,
		"domains": f.domains} {
		if n < 1 {
			return usagef("--%s is at least 1", name)
		}
	}
	if f.o.MessagesPerSession < 0 || f.o.Rate < 0 {
		return usagef("--messages-per-session and --rate are 0 or more")
	}
	if f.o.Size < smallestLoad {
		return usagef("--size is at least %d: the header alone is that long", smallestLoad)
	}
	for flag, pattern := range map[string]string{"--from": f.from, "--to": f.to} {
		if _, err := smtp.ParseMailbox(f.expand(pattern, 0)); err != nil {
			return usagef("%s %q: %w", flag, pattern, err)
		}
	}
	return checkAddress("--address", f.o.Address)
}

// smallestLoad is the smallest message that the generator makes.
const smallestLoad = 256

// loadResult is the answer of "load" for programs.
type loadResult struct {
	Sent              int                `json:"sent"` // the sum of the next three
	Accepted          int                `json:"accepted"`
	Rejected          int                `json:"rejected"` // refused by a reply, for some recipients or all
	Failed            int                `json:"failed"`   // without a reply; some may have been taken
	Seconds           float64            `json:"seconds"`
	MessagesPerSecond float64            `json:"messages_per_second"` // accepted ones
	Latency           smtptest.Latencies `json:"latency_ms"`          // from MAIL to the final reply
}

func (a *app) load(ctx context.Context, f *loadFlags) error {
	if err := f.validate(); err != nil {
		return err
	}
	secure, err := a.secure(&f.login, f.o.Address)
	if err != nil {
		return err
	}
	if secure != nil {
		if f.o.LMTP {
			return usagef("--lmtp goes neither with --tls nor with --user")
		}
		f.o.Dial = func(ctx context.Context) (net.Conn, error) { return dial(ctx, f.o.Address, secure, f.o.Hello) }
	}
	f.o.Sessions = min(f.o.Sessions, f.o.Messages)
	f.o.From = func(i int) string { return f.expand(f.from, i) }
	f.o.To = func(i int) []string {
		first := f.expand(f.to, i)
		list := []string{first}
		at := strings.LastIndexByte(first, '@')
		for n := 1; n < f.recipients; n++ {
			list = append(list, first[:at]+"+"+strconv.Itoa(n)+first[at:])
		}
		return list
	}
	bar := a.newProgress("sending", f.o.Messages)
	f.o.Progress = func(done int) { bar.set(done, "") }
	res, err := smtptest.Load(ctx, f.o)
	bar.end()
	if err != nil && res.Sent == 0 {
		return explainDial(ctx, "--address", f.o.Address, err)
	}
	perr := a.print(loadResult{
		Sent: res.Sent, Accepted: res.Accepted, Rejected: res.Rejected, Failed: res.Failed,
		Seconds: res.Seconds, MessagesPerSecond: res.MessagesPerSecond, Latency: res.Latency,
	}, func(w io.Writer) { printLoad(w, res) })
	switch {
	case perr != nil || ctx.Err() != nil:
		return errors.Join(perr, err)
	case res.FirstError != "":
		fmt.Fprintf(a.err, "godwit: the first thing that went wrong: %s\n", res.FirstError)
	}
	if err != nil || res.Accepted < f.o.Messages {
		return errSilent
	}
	return nil
}

func printLoad(w io.Writer, r smtptest.LoadResult) {
	fmt.Fprintf(w, "%s in %.2f s, %.0f accepted in a second\n", count(r.Sent, "message", "messages"), r.Seconds,
		r.MessagesPerSecond)
	fmt.Fprintf(w, "accepted %d, rejected %d, failed %d\n", r.Accepted, r.Rejected, r.Failed)
	fmt.Fprintf(w, "latency in ms: p50 %.2f, p95 %.2f, p99 %.2f, max %.2f\n", r.Latency.P50, r.Latency.P95, r.Latency.P99,
		r.Latency.Max)
}
