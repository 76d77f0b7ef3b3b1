// Package delivery is how mail leaves: it takes a job of the queue, finds the hosts of its destination, brings the
// message to one of them, and says for each recipient what came of it.
//
// # The way of an attempt
//
// A [Route] of the operator decides where mail for a domain goes; without one its MX records do (RFC 5321, 5.1). Either
// gives a site, the set of hosts that shares limits and sessions. If a kept session of the path (source and site)
// stands, it is used. Otherwise the site's addresses are tried in their order, at most [Options.MaxAddresses] of them
// and at least two if there are two: hosts by preference, IPv6 and IPv4 of one host in a race. What this server itself
// would receive is left out with everything of the same or worse preference (RFC 5321, 5.1); addresses that no mail
// host can have are not dialled (see package egress).
//
// # What leads on to the next address, and what does not
//
// Whatever concerns the host and not the message leads on within the same attempt: no connection, a refusal in greeting
// or EHLO, protocol nonsense, a connection lost or a 421 before a recipient's fate is decided. What the host says about
// a sender, a recipient or a message is the site's word, and no other host is asked: 5yz is final, 4yz waits for the
// next attempt, also for MAIL, where RFC 5321, 4.2.1 would allow either. Exceptions:
//
//   - A 5yz greeting speaks about us as a source, not about a message, so it never bounces mail; 521 and 556 are the
//     exception of the exception, since they say that nothing will ever be accepted there (RFC 7504).
//   - Recipients over the remote's limit (452, LIMITS) go on at once in the next transaction.
//   - A kept session that turns out to be closed, or is ended by the remote at MAIL, is replaced at once, without
//     waiting and without counting as a failure.
//   - 552 to RCPT that speaks of too many recipients is temporary (RFC 5321, 4.5.3.1.10).
//
// When the connection breaks after the message has left, the outcome is unknown: the recipient is deferred and may get
// the message twice, which is the side to err on (RFC 5321, 4.2.5 and 6.1). The reply is awaited to the end of its own
// limit, whatever happens.
//
// All decisions about temporary, permanent and unknown are made in outcome.go.
package delivery
