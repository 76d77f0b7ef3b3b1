// Package outbox writes the event log: one JSON object per line for everything that happens to mail, for people, log
// shippers and programs (package event has the words, docs/reference/events.md explains them).
//
//	l, err := outbox.New(outbox.Options{Dir: "/var/lib/godwit/events", Journal: j, View: spool.RegisterView("events")})
//	go l.Run(ctx)
//	l.Refused(&event.Event{...})          // from the receiving side: what was refused is in no journal
//	events, err := l.Find(ctx, id, 0)     // the life of one message
//
// # At least once, with the same identity
//
// The log is a view of the journal. Each event's id is the position of its record and the number of the event within
// the record, so an event that is told again after a crash carries the same id, and a reader drops repeats by it. The
// log's own last line says where to go on; no other state is needed to miss nothing.
//
// Every second the file is synced, and only then the view advances, which lets the spool remove journal extents. What a
// crash leaves behind: every event up to the last sync; of later ones a part, whose torn or damaged rest is cut off
// when the log is opened and written again from the journal.
//
// Events of what was refused (type refused) do not come from the journal. They are written as they come, may be lost in
// a crash, and are dropped and counted when they come faster than the disk takes them.
//
// # Files
//
//	current.jsonl                                       what is written now
//	20261121T213300.000Z-20261121T223300.000Z.jsonl     closed: begin and end of its time
//	20261121T213300.000Z-20261121T223300.000Z.jsonl.gz  compressed in the background (.zst for zstd)
//	cursor                                              up to where current.jsonl is known to be whole
//
// A file is closed when it has grown to a size or an age; closed files are kept up to a number and an age. If the disk
// is full or fails, the log waits, tries again and goes on where it stood; the journal keeps what is not yet told.
package outbox
