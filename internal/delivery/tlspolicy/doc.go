// Package tlspolicy says what TLS a connection must have because the receiver published it: MTA-STS for the recipient's
// domain, DANE for each of its hosts. It dials nobody; package delivery asks it and obeys.
//
//	p, err := tlspolicy.New(tlspolicy.Options{Resolver: resolver, Store: store, Fetch: fetcher})
//	go p.Run(ctx)                                    // refreshes what is kept
//	d := p.Domain(ctx, "example.com")                // cheap when known; never nil
//	plan := d.Host(ctx, &mx, "mx1.example.com", &addrs)
//	if plan.Skip != nil { ... }                      // not this host: the next one, or later
//	failure := plan.Verify(&state)                   // after a handshake without checks of its own
package tlspolicy
