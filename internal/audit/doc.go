// Package audit keeps the record of every administrative act: who did what, from where, to which thing, with what before
// and after. Records form a chain: each carries the SHA-256 of the one before, so that none can be changed, removed or put
// elsewhere without every later one telling. The head of the chain is signed (Ed25519, RFC 8032) into an anchor, a file that
// should lie outside the data directory, so that a shortened chain, or one of yesterday, tells as well.
//
//	l, err := audit.Open(audit.Options{Store: s, Anchor: "/var/log/godwit/audit.anchor"})
//	err = l.Append(ctx, audit.Act{Actor: "alice", Source: "admin socket", Action: "tenant.create", Target: "acme"})
//	err = l.Do(ctx, act, func(ctx context.Context) (result any, err error) { ... })
//	rev, err := l.Apply(ctx, &batch, act) // the act is a batch of the store: both or neither
//	report, err := audit.VerifyStore(ctx, s, anchors)
//
// # Order
//
// Nothing happens that is not on record. The record is durable before the act begins; if the act then fails, or tells
// something worth keeping, a second record says so and names the first ([Record.Of]). So a crash between the two leaves an
// order on record that may not have been carried out, never an act without a record. Where the act is itself a batch of
// the store, [Log.Apply] writes both at once.
//
// # What is found
//
// [Verify] names the first bad index of a chain that was edited, had records removed, exchanged or its end cut off, or
// that was put back to an earlier state, from the running server's store, from that of a stopped one, or from an export.
// Whoever can write both the data directory and the anchor with its key can make a new history; the anchor belongs where
// the server may only append, or is copied from regularly.
//
// # Secrets
//
// A [Secret] cannot be written: as JSON, as text, in a log, it is its own name. On top of that every field of Before and After
// whose name says that it is a secret loses its value before it is kept.
//
// Records are kept for ever: one takes about 500 octets.
package audit
