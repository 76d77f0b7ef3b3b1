// Package spool is the durable table of entries: what mail is here, for whom, when each recipient is due and what the
// last attempt said. It gives the queue what is due, takes back outcomes, and forgets a message when all of its
// entries are final.
//
//	s, err := spool.Open(ctx, spool.Options{Dir: "/var/lib/godwit/spool", Journal: j}) // j.Run is under way
//	s.SetSink(queue)
//	go s.Run(ctx)                                     // checkpoints, space
//	err = s.Accept(ctx, m, body)                      // nil: on stable storage, and queue.Fresh was called
//	entries, err := s.Claim(ctx, key, now, 100, next) // retries, oldest due first
//	s.Settle(&spool.Attempt{...}, done)               // outcomes
//
// # Journal and index
//
// The journal is the truth: every change is a record in it, and bodies live there alone. The index, a Pebble database
// of small keys, is a checkpoint of what the journal says up to a position, the watermark. It is written without
// syncs, every two seconds, from an overlay in memory that holds what changed since. A message that is accepted and
// delivered between two checkpoints never touches it. Opening reads the watermark and replays the journal from there;
// an index that is missing or unreadable is thrown away and rebuilt from the first record. For that to stay true when
// extents of the journal are removed, the state of messages that live on elsewhere but have records in a removed
// extent is carried forward first.
//
// # States
//
// An entry is Waiting (due at some time), Claimed (somebody delivers it), Held (until an operator releases it) or
// Final. A fresh message is claimed by its acceptance; a retry by a record that is handed to the operating system
// before Claim returns. What was claimed when the process died may have been in flight: it becomes Waiting again, a
// second later the first time, much later if that repeats, so that a crash loop cannot hammer a remote. A wish (hold,
// cancel) for an entry in flight takes effect when its attempt ends without a final outcome.
//
// Each entry gets exactly one final record, and at any time
//
//	accepted = delivered + bounced + expired + suppressed + cancelled + queued
//
// RFCs: 5321, 4.5.4.1 (retries) and 6.1 (responsibility after acceptance); 3461 (whom to report to).
package spool
