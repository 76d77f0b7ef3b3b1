// Package journal keeps what happened: an append-only sequence of checksummed records, durable when acknowledged. It is
// the one place of the server that turns "accepted" into "on stable storage"; everything else about mail is a view
// of it and can be rebuilt.
//
//	j, err := journal.Open(journal.Options{Dir: "/var/lib/godwit/journal"})
//	go j.Run(ctx)                                 // the committer
//	err = j.Append(ctx, &journal.Batch{Records: []journal.Record{{Kind: 1, Meta: meta, Body: body}}})
//	// err == nil: the record is on stable storage and has a Position
//
// # Group commit
//
// Sessions hand their batches to one committer goroutine. It takes all there is, writes it with as few vectored
// writes as the system allows, calls fdatasync once, then tells each waiter. While it syncs, the next group gathers.
// Checksums are computed by the goroutines that append. A lazy batch waits up to 10 ms for a group that must be
// synced anyway.
//
// # Files
//
// A journal is a directory of segments, its extents. All numbers are little-endian, all sums CRC-32C.
//
//	LOCK                     held while open for writing
//	%016x.seg                the segment being written, by number
//	%016x-%08x.seg           a sealed one: number and end, the octets that count; what follows them is no record
//	%016x.tmp                a segment that was being made: deleted by Open
//	%016x.spare              a removed segment whose blocks wait to be used again
//	%016x-%08x.damaged       a removed segment with known damage: kept for people, read by nobody
//
// A segment begins with two copies of its header (owner, epoch, number, salt), 4 KiB apart. Records follow each
// other: fixed header, meta, body. Header, meta and body have sums of their own, so that a walk over the metas skips
// the bodies. The sum of the header also covers the segment's random salt and the record's position: bytes of another
// segment, of an earlier use of the same blocks, or made up by the sender of a message are never taken for a record.
//
// # What a power cut leaves, and how it is told from damage
//
// A power cut may keep any subset of the pages written since the last sync. Each record says how many records its
// batch has, so a batch is whole or it is dropped. Each record also says up to where the journal was durable when it
// was written. Open walks the unsealed segment, bodies included. At the first bad record it looks at what valid
// records follow: if none of them knows the bad place to have been durable, this is the torn tail of writes that
// nobody was told of, and it ends the segment. If one does, bytes were lost after they had been acknowledged: that is
// damage, it is reported ([Damage]), stepped over, and never deleted. Open then syncs what it found before it
// believes it, since after a mere kill the bytes may be in the page cache only.
//
// Nothing is ever truncated or overwritten to repair: the end of a recovered segment is written into its name.
//
// # Failure
//
// After a failed write or sync the journal has failed for good: the whole group and all that follows get [ErrFailed].
// A sync is never tried again, since the kernel may have dropped the pages and would report success.
//
// # Engines
//
// [Journal] is the contract; [Log] is the engine on local files. Package journaltest holds what every engine must
// pass. Positions are opaque, appends are batches, a journal has an owner and an epoch, so that a replicated stream
// can be one.
//
// The file system is Pebble's vfs, here only as a seam: its crashable and its error-injecting file systems test this
// package.
package journal
