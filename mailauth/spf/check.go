package spf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Bounds on the work for one check (RFC 7208, 4.6.4).
const (
	MaxLookups = 10 // terms that ask the DNS
	MaxVoid    = 2  // answers that there is nothing
	maxNames   = 10 // mail servers of one mx, and names of one address
)

// Bounds on texts in results, in octets.
const (
	MaxExplanation = 450
	maxTerm        = 120
)

// Resolver looks names up. An answer that there is nothing is no error: it is an empty list. An error says that it could not
// be found out now.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	// NetIP returns the addresses of a name; network is "ip4" or "ip6".
	NetIP(ctx context.Context, network, name string) ([]netip.Addr, error)
	// MX returns the names of a domain's mail servers.
	MX(ctx context.Context, name string) ([]string, error)
	// PTR returns the names of an address.
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
}

// Status says what a check found (RFC 7208, 2.6).
type Status string

// What checks find.
const (
	None      Status = "none"      // there is no policy, or no domain to ask
	Neutral   Status = "neutral"   // the domain says nothing about this client
	Pass      Status = "pass"      // the client may send for the domain
	Fail      Status = "fail"      // it may not
	SoftFail  Status = "softfail"  // it probably may not
	TempError Status = "temperror" // it could not be found out now
	PermError Status = "permerror" // the policy cannot be read, or asks for too much
)

// Result says what a check found. Its texts are printable ASCII, whatever the DNS has.
type Result struct {
	Status Status
	Domain string // whose policy was asked for: the sender's, or HELO's if the sender is empty
	HELO   bool   // the domain is HELO's
	// Mechanism is the term that decided, "-all" or "include:example.net", in the first record asked; "default" if none did.
	Mechanism   string
	Explanation string // of Fail, what the domain says to the sender; may be empty
	Err         error  // of TempError and PermError
}

// Options say how clients are checked.
type Options struct {
	Resolver Resolver // needed
	Receiver string   // our name, for explanations; empty means "unknown"
	// Timeout bounds one check; zero means 20 seconds, and less is against RFC 7208, 4.6.4.
	Timeout time.Duration
}

// Checker checks clients. It is safe for concurrent use if its Resolver is.
type Checker struct{ o Options }

// New checks the options and returns a Checker.
func New(o Options) (*Checker, error) {
	switch {
	case o.Resolver == nil:
		return nil, errors.New("spf: a checker needs a resolver")
	case o.Timeout < 0:
		return nil, errors.New("spf: the timeout is negative")
	}
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	if o.Receiver == "" {
		o.Receiver = "unknown"
	}
	return &Checker{o}, nil
}

// evaluation is one check.
type evaluation struct {
	o             *Options
	client        netip.Addr
	helo          string
	local         string
	senderDomain  string
	lookups, void int
	names         []string // validated names of the client
	asked         bool     // for them
}

// Check asks whether a client may send mail from sender, the path of MAIL without angle brackets; if it is empty, whether it
// may call itself helo. Domains are in A-labels.
func (c *Checker) Check(ctx context.Context, client netip.Addr, helo, sender string) Result {
	e := &evaluation{o: &c.o, client: client.Unmap().WithZone(""), helo: helo, local: "postmaster", senderDomain: helo}
	if at := strings.LastIndexByte(sender, '@'); at >= 0 {
		e.senderDomain = sender[at+1:]
		if at > 0 {
			e.local = sender[:at]
		}
	} else if sender != "" {
		e.senderDomain = sender
	}
	e.senderDomain = strings.TrimSuffix(e.senderDomain, ".")
	res := Result{Status: None, Domain: printable(strings.ToLower(e.senderDomain), 255), HELO: sender == ""}
	if !client.IsValid() || !isDomain(e.senderDomain) {
		return res
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	v := e.check(ctx, e.senderDomain)
	res.Status, res.Err = v.status, v.err
	if v.status != None && v.err == nil {
		res.Mechanism = printable(v.term, maxTerm)
	}
	if v.status == Fail && v.exp != "" {
		res.Explanation = e.explain(ctx, v.exp, v.domain)
	}
	return res
}

// isDomain reports whether a name can be asked for: two labels at least, none empty or too long (RFC 7208, 4.3).
func isDomain(s string) bool { return strings.Contains(s, ".") && isName(s) }

// isName reports whether the DNS can carry a name.
func isName(s string) bool {
	if s == "" || len(s) > 253 || s[0] == '[' {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return true
}

// printable returns text that is short and harmless.
func printable(s string, limit int) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f {
			return '?'
		}
		return c
	}, s[:min(len(s), 4*limit)])
	return s[:min(len(s), limit)]
}

// verdict is what a record says.
type verdict struct {
	status Status
	term   string
	exp    string // the explanation's domain-spec, and the domain it is of
	domain string
	err    error
}

func failed(err error) verdict {
	if errors.Is(err, errLater) {
		return verdict{status: TempError, err: err}
	}
	return verdict{status: PermError, err: err}
}

var (
	errLater = errors.New("spf: the DNS could not be asked now")
	errLimit = errors.New("spf: the policy asks for too much")
)

// check is check_host() of RFC 7208, 4.
func (e *evaluation) check(ctx context.Context, domain string) verdict {
	if !isDomain(domain) {
		return verdict{status: None}
	}
	list, err := e.o.Resolver.TXT(ctx, domain)
	if err != nil {
		return failed(fmt.Errorf("%w: the policy of %s: %w", errLater, printable(domain, maxTerm), err))
	}
	txt, n := "", 0
	for _, s := range list {
		if isRecord(s) {
			txt = s
			n++
		}
	}
	switch n {
	case 0:
		return verdict{status: None}
	case 1:
	default:
		return failed(fmt.Errorf("%w: there are %d", errRecord, n))
	}
	r, err := parseRecord(txt)
	if err != nil {
		return failed(err)
	}
	for _, t := range r.terms {
		ok, err := e.matches(ctx, t, domain)
		if err != nil {
			return failed(err)
		}
		if ok {
			return verdict{status: t.result, term: t.text, exp: r.exp, domain: domain}
		}
	}
	if r.hasRedirect {
		return e.redirect(ctx, r.redirect, domain)
	}
	return verdict{status: Neutral, term: "default"}
}

func (e *evaluation) redirect(ctx context.Context, spec, domain string) verdict {
	if err := e.count(); err != nil {
		return failed(err)
	}
	name, err := e.target(ctx, spec, domain)
	if err != nil {
		return failed(err)
	}
	v := e.check(ctx, name)
	if v.status == None { // RFC 7208, 6.1
		return failed(fmt.Errorf("%w: redirect=%s has no policy", errRecord, printable(name, maxTerm)))
	}
	return v
}

// count takes one of the lookups (RFC 7208, 4.6.4).
func (e *evaluation) count() error {
	if e.lookups++; e.lookups > MaxLookups {
		return fmt.Errorf("%w: more than %d lookups", errLimit, MaxLookups)
	}
	return nil
}

// answered counts answers that there is nothing, and names errors.
func (e *evaluation) answered(n int, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", errLater, err)
	}
	if n == 0 {
		if e.void++; e.void > MaxVoid {
			return fmt.Errorf("%w: more than %d lookups found nothing", errLimit, MaxVoid)
		}
	}
	return nil
}

func (e *evaluation) matches(ctx context.Context, t term, domain string) (bool, error) {
	switch t.kind {
	case "all":
		return true, nil
	case "ip4", "ip6":
		return t.network.Contains(e.client), nil
	}
	if err := e.count(); err != nil {
		return false, err
	}
	name, err := e.target(ctx, t.domain, domain)
	if err != nil {
		return false, err
	}
	if t.kind == "include" {
		return e.include(ctx, name)
	}
	if !isName(name) { // it cannot exist (RFC 7208, 4.8)
		return false, nil
	}
	switch t.kind {
	case "a":
		list, err := e.addresses(ctx, name)
		if err := e.answered(len(list), err); err != nil {
			return false, err
		}
		return e.among(list, t.bits), nil
	case "mx":
		return e.mx(ctx, name, t.bits)
	case "exists":
		list, err := e.o.Resolver.NetIP(ctx, "ip4", name)
		if err := e.answered(len(list), err); err != nil {
			return false, err
		}
		return len(list) > 0, nil
	default: // ptr
		if err := e.validate(ctx); err != nil {
			return false, err
		}
		for _, n := range e.names {
			if below(n, name) {
				return true, nil
			}
		}
		return false, nil
	}
}

// include evaluates another domain's policy (RFC 7208, 5.2).
func (e *evaluation) include(ctx context.Context, name string) (bool, error) {
	switch v := e.check(ctx, name); v.status {
	case Pass:
		return true, nil
	case TempError, PermError:
		return false, v.err
	case None:
		return false, fmt.Errorf("%w: include:%s has no policy", errRecord, printable(name, maxTerm))
	default:
		return false, nil
	}
}

func (e *evaluation) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	network := "ip6"
	if e.client.Is4() {
		network = "ip4"
	}
	return e.o.Resolver.NetIP(ctx, network, name)
}

// among reports whether the client is within one of the networks around addresses.
func (e *evaluation) among(list []netip.Addr, bits [2]int) bool {
	for _, a := range list {
		a = a.Unmap()
		n := bits[1]
		if a.Is4() {
			n = bits[0]
		}
		if p, err := a.Prefix(n); err == nil && p.Contains(e.client) {
			return true
		}
	}
	return false
}

func (e *evaluation) mx(ctx context.Context, name string, bits [2]int) (bool, error) {
	hosts, err := e.o.Resolver.MX(ctx, name)
	if err := e.answered(len(hosts), err); err != nil {
		return false, err
	}
	if len(hosts) > maxNames {
		return false, fmt.Errorf("%w: mx of %s has more than %d names", errLimit, printable(name, maxTerm), maxNames)
	}
	for _, h := range hosts {
		h = strings.TrimSuffix(h, ".")
		if !isName(h) {
			continue
		}
		list, err := e.addresses(ctx, h)
		if err != nil {
			return false, fmt.Errorf("%w: %w", errLater, err)
		}
		if e.among(list, bits) {
			return true, nil
		}
	}
	return false, nil
}

// validate finds the names of the client that have its address (RFC 7208, 5.5). What cannot be asked is passed over: it is
// not in the hands of the domain.
func (e *evaluation) validate(ctx context.Context) error {
	if e.asked {
		return nil
	}
	e.asked = true
	list, err := e.o.Resolver.PTR(ctx, e.client)
	if err != nil {
		return nil
	}
	if err := e.answered(len(list), nil); err != nil {
		return err
	}
	for _, n := range list[:min(len(list), maxNames)] {
		n = strings.TrimSuffix(n, ".")
		if !isName(n) {
			continue
		}
		if addrs, err := e.addresses(ctx, n); err == nil && e.among(addrs, [2]int{32, 128}) {
			e.names = append(e.names, n)
		}
	}
	return nil
}

// validatedName is what %{p} stands for: the best of the names (RFC 7208, 7.3).
func (e *evaluation) validatedName(ctx context.Context, domain string) string {
	_ = e.validate(ctx) // a void answer leaves no names
	best := "unknown"
	for _, n := range e.names {
		switch {
		case strings.EqualFold(n, domain):
			return n
		case below(n, domain) && (best == "unknown" || !below(best, domain)), best == "unknown":
			best = n
		}
	}
	return best
}

// below reports whether a name is a domain or below it.
func below(name, domain string) bool {
	if len(name) < len(domain) || !strings.EqualFold(name[len(name)-len(domain):], domain) {
		return false
	}
	return len(name) == len(domain) || name[len(name)-len(domain)-1] == '.'
}

// explain returns what a domain says to senders whose mail fails, empty if it says nothing that can be read (RFC 7208, 6.2).
func (e *evaluation) explain(ctx context.Context, spec, domain string) string {
	name, err := e.target(ctx, spec, domain)
	if err != nil || !isName(name) {
		return ""
	}
	list, err := e.o.Resolver.TXT(ctx, name)
	if err != nil || len(list) != 1 || len(list[0]) > MaxRecord {
		return ""
	}
	text, err := e.expand(ctx, list[0], domain, true)
	if err != nil {
		return ""
	}
	return printable(text, MaxExplanation)
}
