// Package auth knows who may come in and what they may do: tenants, the domains they may send from, and the credentials
// of their applications. All of it stands in the store; the [Directory] keeps it in memory, follows every change, and
// answers from there.
//
//	d, err := auth.New(auth.Options{Store: s, Resolver: r, Hostname: "mta1.example.com"})
//	go d.Run(ctx)                                          // follows the store, writes last uses, checks domains
//	server, refused := d.Begin(ctx, "PLAIN", client, policy, func(i *auth.Identity) { session.identity = i })
//	...
//	if err := session.identity.Valid(); err != nil { ... } // at each MAIL: revocation reaches open sessions
//	if err := session.identity.MaySend(ctx, path); err != nil { ... }
//
// Passwords are stored as argon2id hashes (RFC 9106) and SCRAM verifiers (RFC 5802, 7677), API keys, which nobody can
// guess, as SHA-256. A secret is returned once, by the call that makes it. For a few minutes after a success the same
// name and password are known again by a keyed hash that exists in memory only, so that a client that connects often
// costs one hash and not thousands.
//
// Guessing is made slow and told apart from mistakes. Failures count against budgets of the address (the /64 network of
// IPv6), of the account and of the whole server; over a budget nothing is hashed any more and the answer is temporary.
// An address from which an account has come in lately has a budget of its own for that account, so an attacker who
// exhausts the others cannot keep a tenant out of its usual places. Unknown names, wrong passwords, disabled credentials
// and wrong networks take the same time and give the same error, and SCRAM gives an unknown name a salt that stays the
// same. Only few hashes are computed at once: a flood waits for itself.
//
// A domain belongs to a tenant because the operator says so or because its DNS does: see [Challenge].
//
// RFCs: 4422 (SASL), 4616 (PLAIN), 5802 and 7677 (SCRAM), 7628 (OAUTHBEARER), 7519 and 7515 (JWT, JWS), 7517 (JWK),
// 7662 (introspection), 8265 (names and passwords), 9106 (argon2). The exchanges themselves are package smtp/sasl.
package auth
