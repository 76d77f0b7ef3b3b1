// Package tlspolicy says what TLS a connection must have because the receiver published it: MTA-STS for the recipient's
// domain, DANE for each of its hosts. It dials nobody; package delivery asks it and obeys.
//
//	p, err := tlspolicy.New(tlspolicy.Options{Resolver: resolver, Store: store, Fetch: fetcher})
//	go p.Run(ctx)                                    // refreshes what is kept
//	d := p.Domain(ctx, "example.com")                // cheap when known; never nil
//	plan := d.Host(ctx, &mx, "mx1.example.com", &addrs)
//	if plan.Skip != nil { ... }                      // not this host: the next one, or later
//	failure := plan.Verify(&state)                   // after a handshake without checks of its own
//
// # Which of the two holds
//
// DANE goes before MTA-STS, host by host (RFC 8461, 2). Where the host has TLSA records that count, they alone say whether
// TLS is needed and who the host is: an MTA-STS policy neither adds to that nor excuses a failure of it, and is not asked
// whether it names the host. Where it has none, MTA-STS holds. Demands of the operator and of the message (REQUIRETLS) come on
// top, and the stricter wins; that is package delivery's.
//
// A policy belongs to the recipient's domain and never to the host or the connection: two domains with one host may have
// different ones. Plan.Key tells sessions made for different demands apart.
//
// # MTA-STS
//
// The record at _mta-sts tells by its id whether the policy has changed; the policy comes from the domain's policy host over
// HTTPS (package fetch). A policy that was had once holds until its max_age is over, through a restart, whatever becomes of
// record, DNS and policy host meanwhile: only a policy with the mode "none" ends it before. Run fetches each policy anew once
// a day without looking whether the record is there, so that who hides the record cannot wait for the policy to expire.
//
// The first mail to a domain waits for its policy, 15 s at most ([Options.Wait]): long enough for a slow host on another
// continent, short enough that hosts which never answer do not fill the queue's workers. If the policy is not there by then
// the mail goes as if there were none, which RFC 8461, 3.3 allows and which is as safe as the first contact ever is, and
// the policy is fetched in the background with the 60 s that RFC 8461 has for it. Mail to a domain whose policy is known
// waits 5 s at most for news of it.
//
// What is kept is bounded in number and octets. A policy that is obeyed is never dropped for another one: who can make this
// server send to many domains of theirs could drive out the policy that protects somebody else. When the room is full, expired
// policies go first, then those of the modes "none" and "testing", and else the new one is obeyed and not kept.
//
// # DANE
//
// TLSA records count if the MX records, the host's addresses and the records themselves were validated with DNSSEC by a
// resolver that the operator trusts (package dns). An answer that could not be had, or that the resolver found forged, makes
// the host unusable: mail tries the next or waits. Only a validated "there is none", or an unsigned zone, means that there is no
// DANE. If a family of addresses cannot be had, the other one decides, since otherwise breaking one answer would do.
//
// Usages 2 (DANE-TA) and 3 (DANE-EE) are used; 0 and 1, unknown values and malformed records are not. If no record of
// a set can be used, TLS is demanded and nobody is authenticated.
//
// RFCs: 8461 (MTA-STS), 7672 (DANE for SMTP), 6698 and 7671 (TLSA records), 7218 (their acronyms), 7435 (opportunistic
// security), 8460 (words of results).
package tlspolicy
