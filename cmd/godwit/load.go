package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// loadFlags are the flags of "load" that are not options of the generator as they are.
type loadFlags struct {
	o          smtptest.LoadOptions
	from, to   string
	recipients int
	domains    int
}

func (a *app) loadCommand() *cobra.Command {
	var f loadFlags
	c := &cobra.Command{
		Use:   "load",
		Short: "Send many messages and tell rate and latency",
		Long: `Send many messages over many sessions to a server of your own and tell rate and latency. In --from and
--to a # becomes the number of the message, and a % that number modulo --domains.`,
		Example: `  godwit load --address 127.0.0.1:2525 --messages 10000 --size 10240 --sessions 50 --to user@sink.example
  godwit load --address 127.0.0.1:2525 --messages 1000 --rate 100 --domains 20 --to user#@d%.example --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.load(c.Context(), &f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.o.Address, "address", "127.0.0.1:2525", "server to send to")
	fl.IntVar(&f.o.Messages, "messages", 1000, "how many messages")
	fl.IntVar(&f.o.Size, "size", 10240, "octets of each message, header included")
	fl.IntVar(&f.o.Sessions, "sessions", 10, "sessions open at once")
	fl.IntVar(&f.o.MessagesPerSession, "messages-per-session", 0, "messages after which a session is replaced; 0: never")
	fl.Float64Var(&f.o.Rate, "rate", 0, "messages begun in a second; 0: as many as the server takes")
	fl.StringVar(&f.from, "from", "load@client.example", "envelope sender")
	fl.StringVar(&f.to, "to", "user#@sink.example", "envelope recipient")
	fl.IntVar(&f.recipients, "recipients", 1, "recipients of each message; beyond the first, +N is added to the local part")
	fl.IntVar(&f.domains, "domains", 1, "how many numbers a % in --to runs through")
	fl.BoolVar(&f.o.LMTP, "lmtp", false, "speak LMTP")
	return c
}

func (f *loadFlags) expand(pattern string, i int) string {
	s := strings.ReplaceAll(pattern, "#", strconv.Itoa(i))
	return strings.ReplaceAll(s, "%", strconv.Itoa(i%max(f.domains, 1)))
}

func (a *app) load(ctx context.Context, f *loadFlags) error {
	if f.recipients < 1 || f.domains < 1 {
		return usagef("--recipients and --domains are at least 1")
	}
	f.o.From = func(i int) string { return f.expand(f.from, i) }
	f.o.To = func(i int) []string {
		first := f.expand(f.to, i)
		list := []string{first}
		local, domain, _ := strings.Cut(first, "@")
		for n := 1; n < f.recipients; n++ {
			list = append(list, local+"+"+strconv.Itoa(n)+"@"+domain)
		}
		return list
	}
	bar := a.newProgress("sending", f.o.Messages)
	f.o.Progress = func(done int) { bar.set(done, "") }
	res, err := smtptest.Load(ctx, f.o)
	bar.end()
	if perr := a.print(res, func(w io.Writer) { printLoad(w, res) }); perr != nil {
		return errors.Join(err, perr)
	}
	if err == nil && res.Rejected+res.Failed > 0 {
		return errSilent
	}
	return err
}

func printLoad(w io.Writer, r smtptest.LoadResult) {
	fmt.Fprintf(w, "%d messages in %.2f s: %.0f/s\n", r.Sent, r.Seconds, r.MessagesPerSecond)
	fmt.Fprintf(w, "accepted %d, rejected %d, failed %d\n", r.Accepted, r.Rejected, r.Failed)
	fmt.Fprintf(w, "latency ms: p50 %.2f, p95 %.2f, p99 %.2f, max %.2f\n", r.Latency.P50, r.Latency.P95, r.Latency.P99, r.Latency.Max)
	if r.FirstError != "" {
		fmt.Fprintf(w, "first error: %s\n", r.FirstError)
	}
}
