// Package event holds the words for what happens to mail: the types of events, the closed lists of reasons and classes,
// and the JSON form of one event, as it stands in the event log, in webhooks and in the answers of the API.
//
// An [Event] is one fact about one message or one of its entries (an entry is one recipient of one message). Each event
// has an identity that stays the same when the fact is told again after a crash, so that a reader drops repeats by
// [Event.ID].
//
// Three words answer "why", from coarse to fine. The [Reason] says why an entry moved, in terms of what Godwit did or
// saw: remote_refused, dns_temporary, expired. The [Class] says what a remote reply meant, whatever its wording:
// no_such_user, mailbox_full, rate_limited. The explanation is a sentence for people. Types, reasons and classes are
// closed lists: programs may switch over them, metrics may use them as labels, and a new one is an entry in the
// changelog.
//
// Writing is allocation-free:
//
//	line := e.AppendJSON(buf[:0])
//	line = append(line, '\n')
//
// Reading takes one line back, and tolerates names it does not know, which newer versions may have added:
//
//	e, err := event.ParseLine(line)
package event
