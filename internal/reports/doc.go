// Package reports is about aggregate reports, both ways.
//
// Out: what TLS to receivers came to is counted by day and domain, and told to the domains that ask for it (TLS reporting). In: the
// reports that others send here, on TLS and on DMARC, are read, kept as summaries, and told as events.
//
//	r, err := reports.New(reports.Options{Store: st, Resolver: res, Accept: spool.Accept, Sign: signer.Sign, ...})
//	go r.Run(ctx)
//	r.Record(result)                           // from delivery; never blocks
//	taken, err := r.Take(ctx, incoming)        // a message to one of Settings.Addresses
//
// # Out
//
// [Reports.Record] adds to counts in memory, which are bounded in domains, policies, details and octets; what does not fit is counted
// without details. Every minute they are written to the store below "reports/tls/open/", so that a crash costs a minute of counts. A
// domain that publishes no TLSRPT record is found out soon and not counted any further that day. When the UTC day is over each
// report waits up to four hours, another time for each domain and server, then it goes to all its destinations, by signed mail
// through the spool like any message, and by HTTPS. What fails is tried again for a day.
//
// A report is told nobody about: its delivery is asked to ignore what is wrong with TLS, its sessions are to be recorded by nobody (see
// [Protocol]), and nobody is told if it cannot be delivered. So no report is ever the reason for another.
//
// # In
//
// A report is known by who made it and its id; one that comes again changes nothing. Of each, the counts are kept by source address and
// result, and in no case the file. What cannot be read is kept in part, the last few, for an operator to look at; its
// sender is never told, since what it names as its sender need not be.
//
//	RFC 8460, 3: records are looked up by policy domain; mail is signed
//	RFC 8460, 4.1: days of UTC
//	RFC 8460, 5.3 and 5.4: by mail, by HTTPS; delay at random, tries for 24 hours
//	RFC 9990, 3; RFC 7489, 7.2: DMARC reports are taken in
package reports
