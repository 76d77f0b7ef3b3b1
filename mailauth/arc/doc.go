// Package arc verifies and extends Authenticated Received Chains (RFC 8617): what each relay on the way of a message found out
// about it, sealed, so that a later one can believe it where the relays broke a signature.
//
//	chain, err := verifier.Verify(ctx, pieces, time.Now())
//	...
//	fields, err := sealer.Seal(nil, pieces, chain, results, key, time.Now())
//	body.Prepend(fields)
//
// A chain that holds says only that nobody changed it. Whether its sealers tell the truth is for policy to decide, from Sealers.
package arc
