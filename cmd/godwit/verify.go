package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/submission"
	"github.com/godwit-mta/godwit/internal/submission/inbound"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// maxVerified bounds a message to be verified, in octets.
const maxVerified = 256 << 20

// suspect is what the flags of "verify" say.
type suspect struct {
	file               string
	client, helo, from string
	hostname, resolver string
	sealers            []string
	rejectSPF          bool
}

func (a *app) verifyCommand() *cobra.Command {
	var s suspect
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Find out who a message is from: SPF, DKIM, DMARC, ARC",
		Long: `Find out who a message is from, as a listener with "verify" does, and print what was found, what such a listener would
answer, and the Authentication-Results field. It asks the DNS and needs no server.
FILE is a message as it came in, "-" is standard input. Without --client, only signatures are checked.
The status is 0 if "verify: reject" would take the message.`,
		Example: `  godwit verify message.eml --client 192.0.2.1 --helo mx.example.com --from ann@example.com
  godwit verify bounce.eml --client 2001:db8::25 --helo mx.example.com --from "<>" --resolver 127.0.0.1 --json`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			s.file = args[0]
			return a.verify(c.Context(), &s)
		},
	}
	f := c.Flags()
	f.StringVar(&s.client, "client", "", "`ADDRESS` that the message came from")
	f.StringVar(&s.helo, "helo", "", "`NAME` that the client gave in EHLO")
	f.StringVar(&s.from, "from", "", "`SENDER` that it gave in MAIL; \"<>\" is the null sender")
	f.StringVar(&s.hostname, "hostname", "localhost", "`NAME` of the receiver, which the field begins with")
	f.StringVar(&s.resolver, "resolver", "", "`ADDRESS` of the DNS server to ask (default: the system's)")
	f.StringArrayVar(&s.sealers, "trusted-sealer", nil, "`DOMAIN` whose ARC seals are believed; may be repeated")
	f.BoolVar(&s.rejectSPF, "reject-spf", false, "what fails SPF and has no DMARC policy would be refused, too")
	return c
}

// verified is the answer of "verify" for programs.
type verified struct {
	Author   string         `json:"author,omitempty"` // the domain that DMARC was asked for
	Results  []methodResult `json:"results"`
	Decision string         `json:"decision"`        // of "verify: reject"
	Reply    string         `json:"reply,omitempty"` // if it is refused
	Sealer   string         `json:"vouched_for_by,omitempty"`
	Short    string         `json:"auth"`  // as in events
	Field    string         `json:"field"` // with its line ends
}

// methodResult is what one method found.
type methodResult struct {
	Method     string            `json:"method"`
	Result     string            `json:"result"`
	Reason     string            `json:"reason,omitempty"`
	Comment    string            `json:"comment,omitempty"`
	Properties map[string]string `json:"properties,omitempty"`
}

func (a *app) verify(ctx context.Context, s *suspect) error {
	q, err := s.question(a.in)
	if err != nil {
		return err
	}
	checker, err := s.checker()
	if err != nil {
		return err
	}
	found := checker.Check(ctx, q)
	field, err := found.Append(nil, s.hostname)
	if err != nil {
		return usagef("--hostname %q is no name", s.hostname)
	}
	reply, decision := checker.Decide(inbound.Reject, found)
	out := verified{
		Author: found.Author, Decision: string(decision), Sealer: found.Sealer, Short: found.String(), Field: string(field),
	}
	if !reply.IsZero() {
		out.Reply = reply.String()
	}
	for _, r := range found.Results() {
		m := methodResult{Method: r.Method, Result: r.Value, Reason: r.Reason, Comment: r.Comment, Properties: make(map[string]string)}
		for _, p := range r.Properties {
			m.Properties[p.Type+"."+p.Name] = p.Value
		}
		out.Results = append(out.Results, m)
	}
	err = a.print(out, func(w io.Writer) { printVerified(w, &out) })
	if err == nil && out.Reply != "" {
		return errSilent
	}
	return err
}

func printVerified(w io.Writer, v *verified) {
	for _, r := range v.Results {
		fmt.Fprintf(w, "%-6s %-10s", r.Method, r.Result)
		for _, name := range []string{
			"smtp.mailfrom", "smtp.helo", "header.d", "header.s", "header.a", "header.from", "polrec.p", "polrec.domain", "policy.iprev",
		} {
			if p, ok := r.Properties[name]; ok {
				fmt.Fprintf(w, " %s=%s", name[strings.IndexByte(name, '.')+1:], p)
			}
		}
		for _, words := range []string{r.Comment, r.Reason} {
			if words != "" {
				fmt.Fprintf(w, " (%s)", words)
			}
		}
		fmt.Fprintln(w)
	}
	switch {
	case v.Reply != "":
		fmt.Fprintf(w, "\nverify: reject would answer %s\n", v.Reply)
	case v.Sealer != "":
		fmt.Fprintf(w, "\nverify: reject would take it, since it passed DMARC at %s\n", v.Sealer)
	default:
		fmt.Fprint(w, "\nverify: reject would take it\n")
	}
	fmt.Fprintf(w, "\n%s", strings.ReplaceAll(v.Field, "\r\n", "\n"))
}

func (s *suspect) question(in io.Reader) (*inbound.Question, error) {
	q := &inbound.Question{Hello: s.helo}
	if s.client != "" {
		var err error
		if q.Client, err = netip.ParseAddr(s.client); err != nil {
			return nil, usagef("--client %q is not an IP address", s.client)
		}
	}
	if s.from != "" && s.from != "<>" {
		var err error
		if q.From, err = smtp.ParseMailbox(s.from); err != nil {
			return nil, usagef("--from %q is not an address; the null sender is \"<>\"", s.from)
		}
	}
	if s.file != "-" {
		f, err := os.Open(s.file)
		if err != nil {
			return nil, fmt.Errorf("read message: %w", err)
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxVerified+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read message: %w", err)
	case len(raw) > maxVerified:
		return nil, fmt.Errorf("the message is larger than %d MiB", maxVerified>>20)
	}
	q.Pieces = [][]byte{wireForm(raw)}
	head, err := message.ParseHeader(q.Pieces[0])
	q.Authors = submission.Authors(head, err)
	return q, nil
}

func (s *suspect) checker() (*inbound.Checker, error) {
	var o dns.Options
	if s.resolver != "" {
		at, err := config.ParseServer(s.resolver)
		if err != nil {
			if _, _, split := net.SplitHostPort(s.resolver); split == nil {
				return nil, usagef("--resolver %q is not an IP address and a port", s.resolver)
			}
			return nil, usagef("--resolver %q is not an IP address", s.resolver)
		}
		o.Servers = []netip.AddrPort{at}
	}
	r, err := dns.New(o)
	if err != nil {
		return nil, err
	}
	return inbound.New(inbound.Options{
		Hostname: s.hostname, Resolver: inbound.DNS(r), Config: inbound.Config{TrustedSealers: s.sealers, RejectSPF: s.rejectSPF},
	})
}
