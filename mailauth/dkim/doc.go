// Package dkim signs and verifies messages with DomainKeys Identified Mail (RFC 6376), with RSA (RFC 8301) and Ed25519
// (RFC 8463).
//
// A [Signer] says what is signed; a [Key] says by whom. One call makes all signatures of a message from one pass over
// its bytes, and appends the finished header fields, which belong before the message exactly as they are:
//
//	s, err := dkim.New(dkim.Options{})
//	...
//	fields, err := s.Sign(nil, pieces, keys, time.Now())
//	body.Prepend(fields)
//
// What is signed is the bytes that leave: whoever changes one of them afterwards breaks the signature. Header and body
// are made canonical the relaxed way (RFC 6376, 3.4.2 and 3.4.4), since relays rewrap lines and drop trailing blanks. The
// body is always signed whole: l= would let others append to it (RFC 6376, 8.2).
//
// Fields that readers show are listed once more than they occur (RFC 6376, 5.4), so that a second From or Subject put
// on top of a signed message breaks it.
//
// A [Verifier] tells what became of each signature of a message, in one pass over its body whatever their number and forms:
//
//	v, err := dkim.NewVerifier(dkim.VerifyOptions{Resolver: r})
//	...
//	results, err := v.Verify(ctx, pieces, time.Now())
//
// What others send is bounded: signatures, names in h=, the size of fields, records and keys, and the time for the DNS. Line ends
// are not repaired: a message with a bare CR or LF has no signature that holds, since programs disagree on what it says.
package dkim
