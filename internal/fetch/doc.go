// Package fetch gets and sends documents over HTTPS where somebody else names the place: policies of mail domains (RFC
// 8461), addresses for reports (RFC 8460). It gives whoever names the place nothing but that document.
//
//	c, err := fetch.New(fetch.Options{Resolver: resolver})
//	body, contentType, err := c.Get(ctx, "https://mta-sts.example.com/.well-known/mta-sts.txt")
//	err = c.Post(ctx, "https://reports.example.com/tls", "application/tlsrpt+gzip", report)
//	var e *fetch.Error
//	if errors.As(err, &e) { ... e.Kind ... }
//
// What it holds to:
//
//   - HTTPS alone, at the ports of [Options.Ports], without user name, and never by a proxy. The certificate is checked
//     as a browser would (RFC 9110, 4.3.4), TLS 1.2 at least.
//   - The address that is checked is the address that is dialled: names are looked up here, each address is judged by
//     [dns.Unusable], and the connection goes to that address and no other. A name whose answer changes between check
//     and connection gains nothing.
//   - No redirect is followed (RFC 8461, 3.3). No compressed answers, no cookies, no kept connections.
//   - Time, header and body are bounded, and so is how many connections there are at once.
package fetch
