package doctor

import "cmp"

// Probe is one way in which relays have been opened. The numbers are those of the literature: 1 to 16 are what nmap's
// smtp-open-relay tries, the others come from advisories of the years since.
type Probe struct {
	ID   string // "12", "25c"
	What string // what it tries

	ehlo             string
	preface          string // sent before the greeting is read
	startTLS         bool
	needsRelayDomain bool
	steps            []step
}

func (p *Probe) hello() string { return cmp.Or(p.ehlo, "relay-probe.invalid") }

// step is commands that are sent together.
type step []command

type command struct {
	send    string
	refused bool // a positive reply makes the listener an open relay
}

func free(lines ...string) step {
	var s step
	for _, l := range lines {
		s = append(s, command{send: l})
	}
	return s
}

func refused(line string) step { return step{{send: line, refused: true}} }

// mail is the plain probe: a sender and a recipient.
func mail(from, to string) []step {
	return []step{free("MAIL FROM:<" + from + ">"), refused("RCPT TO:<" + to + ">")}
}

const stranger = "relay@relay-probe.invalid"

// Probes lists all there are.
func Probes() []Probe { return append([]Probe(nil), probes...) }

var probes = []Probe{
	{ID: "1", What: "the empty sender", steps: mail("", "u@{dest}")},
	{ID: "2", What: "a foreign sender", steps: mail("a@{dest}", "u@{dest}")},
	{ID: "3", What: "a sender at the server's name", steps: mail("a@{srv}", "u@{dest}")},
	{ID: "4", What: "a sender at the server's address", steps: mail("a@[{ip}]", "u@{dest}")},
	{ID: "5", What: "percent hack at the server's address", steps: mail("a@[{ip}]", "u%{dest}@[{ip}]")},
	{ID: "6", What: "percent hack at the server's name", steps: mail("a@{srv}", "u%{dest}@{srv}")},
	{ID: "7", What: "a quoted address", steps: mail(stranger, `"u@{dest}"`)},
	{ID: "8", What: "a quoted percent hack", steps: mail(stranger, `"u%{dest}"`)},
	{ID: "9", What: "an address at the server's address", steps: mail("a@[{ip}]", "u@{dest}@[{ip}]")},
	{ID: "10", What: "a quoted address at the server's address", steps: mail("a@[{ip}]", `"u@{dest}"@[{ip}]`)},
	{ID: "11", What: "an address at the server's name", steps: mail("a@{srv}", "u@{dest}@{srv}")},
	{ID: "12", What: "a source route by the server's address", steps: mail("a@[{ip}]", "@[{ip}]:u@{dest}")},
	{ID: "13", What: "a source route by the server's name", steps: mail("a@{srv}", "@{srv}:u@{dest}")},
	{ID: "14", What: "a bang path", steps: mail("a@{srv}", "{dest}!u")},
	{ID: "15", What: "a bang path at the server's address", steps: mail("a@[{ip}]", "{dest}!u@[{ip}]")},
	{ID: "16", What: "a bang path at the server's name", steps: mail("a@{srv}", "{dest}!u@{srv}")},

	{ID: "17", What: "a sender of ours", steps: mail("a@{ours}", "u@{dest}")},
	{ID: "18", What: "postmaster of ours", steps: mail("postmaster@{ours}", "u@{dest}")},
	{ID: "19", What: "a sender at localhost", steps: mail("a@localhost", "u@{dest}")},
	{ID: "20", What: "a domain with its last dot", steps: mail("a@{ours}", "u@{dest}.")},
	{ID: "21a", What: "a domain in capitals", steps: mail("a@{ours}", "u@{DEST}")},
	{ID: "21b", What: "a domain in A-labels", steps: mail("a@{ours}", "u@xn--bcher-kva.{dest}")},
	{ID: "21c", What: "a domain in U-labels",
		steps: []step{free("MAIL FROM:<a@{ours}> SMTPUTF8"), refused("RCPT TO:<u@bücher.{dest}>")}},
	{ID: "21d", What: "a look-alike of ours", steps: mail("a@{ours}", "u@{ours}.{dest}")},
	{ID: "22", What: "a source route of two", steps: mail("a@{ours}", "@{ours},@{dest}:u@{dest}")},
	{ID: "23a", What: "the loopback address, IPv6", steps: mail("a@{ours}", "u@[IPv6:::1]")},
	{ID: "23b", What: "the loopback address, IPv4", steps: mail("a@{ours}", "u@[127.0.0.1]")},
	{ID: "23c", What: "localhost", steps: mail("a@{ours}", "u@localhost")},
	{ID: "24", What: "NUL in the domain", steps: mail("a@{ours}", "u@{ours}\x00.{dest}")},
	{ID: "25a", What: "after a failed login",
		steps: append([]step{free("AUTH PLAIN AHJlbGF5LXByb2JlAHJlbGF5LXByb2Jl")}, mail(stranger, "u@{dest}")...)},
	{ID: "25b", What: "after RSET", steps: append([]step{free("MAIL FROM:<a@{ours}>"), free("RSET")}, mail(stranger, "u@{dest}")...)},
	{ID: "25c", What: "after STARTTLS, without a login", startTLS: true, steps: mail(stranger, "u@{dest}")},
	{ID: "25d", What: "as the second recipient", needsRelayDomain: true,
		steps: []step{free("MAIL FROM:<a@{ours}>"), free("RCPT TO:<postmaster@{relay}>"), refused("RCPT TO:<u@{dest}>")}},
	{ID: "25e", What: "all commands in one packet",
		steps: []step{{{send: "MAIL FROM:<a@{ours}>"}, {send: "RCPT TO:<u@{dest}>", refused: true}, {send: "RSET"}}}},
	{ID: "26a", What: "the server's name in EHLO", ehlo: "{srv}", steps: mail("a@{srv}", "u@{dest}")},
	{ID: "26b", What: "the loopback address in EHLO", ehlo: "[127.0.0.1]", steps: mail("a@{srv}", "u@{dest}")},
	{ID: "26c", What: "localhost in EHLO", ehlo: "localhost", steps: mail("a@localhost", "u@{dest}")},
	{ID: "27a", What: "XCLIENT that claims loopback and a login", steps: append([]step{
		{{send: "XCLIENT ADDR=127.0.0.1 NAME=localhost LOGIN=admin", refused: true}}}, mail("a@{ours}", "u@{dest}")...)},
	{ID: "27b", What: "XFORWARD that claims loopback", steps: append([]step{
		{{send: "XFORWARD ADDR=127.0.0.1 NAME=localhost", refused: true}}}, mail("a@{ours}", "u@{dest}")...)},
	{ID: "27c", What: "a PROXY header that claims loopback", preface: "PROXY TCP4 127.0.0.1 127.0.0.1 40000 25\r\n",
		steps: mail("a@{ours}", "u@{dest}")},
	{ID: "29a", What: "ETRN", steps: []step{refused("ETRN {dest}")}},
	{ID: "29b", What: "TURN", steps: []step{refused("TURN")}},
	{ID: "30", What: "BDAT after a refused recipient", steps: append(mail("a@{ours}", "u@{dest}"), refused("BDAT 7 LAST\r\nhello"))},
	{ID: "31", What: "a forged sender and a recipient that cannot be", steps: mail("victim@{dest}", "nobody@{dest}")},
	{ID: "32", What: "ORCPT that names ours",
		steps: []step{free("MAIL FROM:<a@{ours}>"), refused("RCPT TO:<u@{dest}> ORCPT=rfc822;postmaster@{ours}")}},
	{ID: "33", What: "AUTH= of MAIL that vouches for ours",
		steps: []step{free("MAIL FROM:<a@{ours}> AUTH=admin@{ours}"), refused("RCPT TO:<u@{dest}>")}},
}
