// Package inbound finds out who mail from outside is from: SPF, DKIM, DMARC, ARC and the name of the client's address. What
// it found goes into an Authentication-Results field, a short line for events, metrics, and, where a listener says so, a refusal.
//
//	c, err := inbound.New(inbound.Options{Hostname: "mx.example.net", Resolver: inbound.DNS(r)})
//	...
//	f := c.Check(ctx, &inbound.Question{Client: addr, Hello: "mail.example.com", From: path, Authors: authors, Pieces: pieces})
//	field := f.Append(nil, c.Hostname())           // "Authentication-Results: mx.example.net; spf=pass ..."
//	reply, why := c.Decide(inbound.Reject, f)      // zero: take the message
//
// # What is bounded
//
// A check has a time for all of its DNS, a number of lookups (RFC 7208, 4.6.4: ten, two of them void; RFC 9989, 4.10: eight for each
// domain; ten signatures), and checks in flight are bounded over all listeners. One that finds no place within a short time is not
// made: the message goes on as "temperror", or is put off where a listener refuses. So DNS in trouble cannot take all sessions.
//
// # What is refused
//
// In the mode Reject, mail whose author's domain has a policy of "reject" that the message fails, 550 5.7.1. RFC 9989, 5.4, wants
// receivers to go by more than the policy: that is what the operator says by the mode, and what trusted sealers are for, mailing
// lists above all, whose word that the message passed when it came to them counts (RFC 8617). A policy of "quarantine" refuses
// nothing. Mail that has no author whom all readers see alike is refused too, 550 5.7.1, and mail from a domain that says it
// takes none, 550 5.7.27 (RFC 7505, 4.2). SPF alone refuses only where the domain has no DMARC policy and the configuration says so,
// 550 5.7.23 (RFC 7372, 3.2). What cannot be found out now and matters is put off, 451 4.7.24 or 451 4.4.3.
//
// RFCs: 7208 (SPF), 6376 (DKIM), 9989 (DMARC), 8617 (ARC), 8601 (Authentication-Results; iprev), 7372 (reply codes).
package inbound
