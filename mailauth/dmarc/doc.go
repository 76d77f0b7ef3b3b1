// Package dmarc finds a domain's DMARC policy and judges mail by it (RFC 9989).
//
//	e := dmarc.Evaluator{Resolver: r}
//	v := e.Evaluate(ctx, dmarc.Evidence{Author: "news.example.com", SPF: "bounce.example.com", DKIM: []string{"example.com"}})
//	switch v.Result { case dmarc.Pass: ... case dmarc.Fail: ... v.Disposition ... }
//
// Which domain speaks for another is found by walking up the DNS (RFC 9989, 4.10), eight queries at most, and not from a list of
// public suffixes. What cannot be asked right now is TempError, never a failure.
package dmarc
