// Package spf asks whether a host may send mail for a domain (RFC 7208).
//
//	c, err := spf.New(spf.Options{Resolver: r, Receiver: "mx.example.net"})
//	...
//	switch res := c.Check(ctx, client, helo, sender); res.Status { case spf.Fail: ... res.Explanation ... }
//
// A record is read whole before any of it counts, so that an error at its end is found whoever asks (RFC 7208, 4.6). Work is
// bounded: ten terms that ask the DNS, two answers that there is nothing, ten names of mail servers, and a time for all of it.
package spf
