// Package keyring keeps the DKIM keys of domains and says which of them sign (RFC 6376): it makes and imports keys, has their
// records published, looks whether DNS shows them, and replaces old keys by new ones without a message in between that is
// unsigned or cannot be verified.
//
//	ring, err := keyring.New(keyring.Options{Store: s, Dir: dir, Resolvers: resolvers, Publisher: publisher})
//	go ring.Run(ctx)                                        // checks, publishes, rotates
//	keys, err := ring.Keys("example.com", "shop")           // for each message: a look into memory, without a lock
//	made, err := ring.Create(ctx, keyring.NewKeys{Domain: "example.com"})
//
// # Where keys are
//
// Keys that the keyring made or imported are its own: what is known of them is in the store, below "dkim/". The private key is
// in the same record, sealed by the data's own key (internal/seal), if what is kept on disk is encrypted, and otherwise in
// a file that only the server may read. Keys of the configuration are files that the operator keeps, or a command
// that is given a hash and returns its signature, so that the key may stay in a device. No private key is ever
// written to a log, an answer or an error.
//
// # The life of a key
//
//	created    its record is to be published
//	published  some resolver has seen the record
//	verified   every resolver has seen it, and it is the key's
//	signing    it signs, and another one of its algorithm that did retires
//	retiring   it signs no more; the record stays until mail that it signed has been delivered or has come back
//	revoked    the record says so, with an empty p= (RFC 6376, 3.6.1); the private key is gone
//
// and then it is removed. A verified key waits a while before it signs in place of another one, so that servers and caches
// that nobody asked have the record too; the first one of a domain begins at once.
//
// A key signs only while DNS shows its record. That is looked at before its first use, every day, and often while
// something is wrong. What stops a key is DNS saying twice that there is no such record, or another one: no
// answer says nothing about a record and changes nothing. If another key of the domain with the same algorithm verifies,
// the next one or the one before, it steps in.
//
// Keys of the configuration always are to sign. Of several for one domain with one algorithm the first one does whose record is
// in DNS; so a new one is put before the old one, and takes over when its record is seen.
//
// # Whose mail
//
// A message is signed by the keys of its author's domain, or of the nearest domain above it that has keys (relaxed alignment, RFC
// 9989, 4.4.2), if these are the tenant's or the operator's, and the domain is not some other tenant's. The operator's own
// domain may sign all mail besides, which is how some providers tell complaints.
//
// RFC 6376, 3.6: key records. RFC 8301, 3.2: RSA keys of 2048 bits and more. RFC 8463, 3: Ed25519 beside RSA, under another
// selector.
package keyring
