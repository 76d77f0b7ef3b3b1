// Package seal encrypts what is kept on disk. It is optional, and costs nothing while it is off.
//
//	masters, err := seal.LoadMasters(ctx, "/etc/godwit/master.key", nil)
//	keys, err := seal.Open(seal.Options{Dir: "/var/lib/godwit", Masters: masters, Seal: true})
//	journal.Open(journal.Options{Sealer: keys, ...})             // records
//	store.Open(store.Options{FS: keys.FS(vfs.Default), ...})     // files of a database
//	err = keys.Rotate(masters)                                   // a new data key from here on
//
// # Envelope
//
// A master key comes from outside: a file, or a command that asks a key service. It wraps data keys, which stand in the file
// keys.json in the data directory; data keys encrypt data. So a new master key rewrites one small file, and a new data key
// nothing at all: what older ones encrypted stays readable as long as it is kept. All keys have 256 bits, all randomness is
// the system's.
//
// # Records
//
// What a journal record holds (envelope, body) and what the event log says of people is sealed with AES-256-GCM (NIST SP
// 800-38D). A key is never used twice with the same nonce: each process that writes derives a key of its own for each data key
// (HKDF-SHA-256, RFC 5869, with 128 random bits as salt), and counts its nonces. A record carries which data key, which salt
// and which number; its body is sealed in pieces of 16 KiB, whose nonces hold their place and whether they are the last, so that
// none can be dropped, moved or taken from another record.
//
// # Files
//
// The databases (store, spool index) write all their files through [Keyring.FS], which encrypts with AES-256 in counter mode
// under a key for each file. That hides content and keys of the database; the database's own checksums find damage, but no
// malice: whoever can write the disk can do worse. Names and sizes of files, and lengths and positions of records, stay clear.
//
// # Losing keys
//
// Without the master key nothing can be read and nothing starts; nothing is deleted either. keys.json is written twice
// (keys.json and keys.copy.json), and belongs in every backup of the data directory.
package seal
