// Package dns finds where mail goes: MX records, the addresses of hosts, TXT records. It asks recursive resolvers over
// UDP and TCP, keeps what they say for as long as they allow, and tells final answers from passing trouble.
//
//	r, err := dns.New(dns.Options{})                  // the system's resolvers
//	mx, err := r.LookupMX(ctx, "example.com")         // hosts in the order to try them
//	if err != nil {
//		var e *dns.Error
//		if errors.As(err, &e) && !e.Temporary() { ... } // no such domain, null MX: final
//	}
//	a, err := r.LookupAddrs(ctx, mx.Hosts[0].Name)    // both families, in the order to try them
//	reason, bad := dns.Unusable(a.IPs[0])             // may a public MX point there?
//
// Three kinds of answer never mix. The name does not exist, or has no such record: the domain's own word, final. Null
// MX: final too (RFC 7505). Everything else, from SERVFAIL to a truncated answer that TCP cannot complete, is
// temporary, since it says something about a server or the way to it and nothing about the domain. Each [Error] can
// explain itself to an operator.
//
// A Resolver keeps no goroutine. A lookup runs on its caller; others that ask the same meanwhile wait for it. Queries
// carry a random id, leave from a random port, and spell the name in random case, and an answer must repeat all three
// (RFC 5452; draft-vixie-dnsext-dns0x20). Only records that answer the question are kept, so a server cannot plant
// others.
//
// The Authentic flag of results is the AD bit (RFC 4035, 3.2.3) of a resolver that is trusted to validate: one on
// loopback, or as [Options.Trust] says. It covers each alias passed on the way.
//
// RFCs: 1035 (DNS), 2181 and 2308 (TTLs, negative answers), 5321 section 5.1 (MX), 5452 (resilience), 6891 (EDNS), 7505
// (null MX), 7766 (TCP), 9520 (failures are cached too). This package is the only one that knows the DNS library.
package dns
