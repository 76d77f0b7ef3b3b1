// Package queue decides when mail is delivered. A queue is the entries of one tenant for one destination domain; the
// [Scheduler] serves them all, and asks a [Deliverer] for one attempt at a time.
//
//	s, err := queue.New(queue.Options{Spool: sp, Deliverer: d, Store: st, IDs: ids, Hostname: "mta1.example.com"})
//	sp.SetSink(s)      // fresh mail and due times come from the spool
//	err = s.Run(ctx)   // until ctx ends: then it drains
//
// # Fresh mail and retries
//
// A message that was just accepted is attempted at once, while its bytes are in memory. A burst that is larger than
// the windows, which are bounded in entries and octets, goes back to the spool and comes again in its turn. What is
// deferred waits in the spool; memory holds one time per queue, the earliest at which something is due, and one timer
// serves all queues. When it is due a worker claims a hundred entries at a time; the claim is recorded with its next
// due time before anything is tried, so that a crash cannot hammer a remote.
//
// The pauses between attempts are a list ([DefaultRetry]), each stretched or shortened at random, until the message's
// own end of life. An entry that is too old is final within a minute, whatever holds it up, unless an operator holds
// it: held entries do not age.
//
// # Fairness
//
// When there is more work than slots, tenants take turns, then the queues of each tenant, one attempt at a time. A
// tenant never has all slots, so that mail of another one begins at once. Destinations that have not answered lately
// share at most half of the slots, so that dead hosts with their timeouts leave room for the living. A queue begins
// with a few attempts at once and earns more.
//
// # Destinations that are down
//
// After three attempts in a row that did not reach the destination its queue is suspended as a whole. What was claimed
// goes back and stays due, without a record for each entry; after one, three, eight, ... minutes a single entry is
// tried, and the first answer lets the others go on, one at a time at first.
//
// # Operators
//
// Hold, Release, Retry, Bounce and Cancel take a [Selection]; each is durable when it returns. A hold on a queue,
// tenant or sender is also a [Rule] for mail to come. [Scheduler.Explain], [Scheduler.List] and [Scheduler.Queue] say
// why something waits.
//
// # Reports
//
// Senders are told of failures, delays and, if they asked, of successes, by messages with the null sender that are
// accepted like any other, in one step with the note that they were told: a crash loses no report and doubles none.
//
// RFCs: 5321, 4.5.4.1 (retries) and 6.1 (notification); 3461 (who is told of what); 3463 (codes in reports).
package queue
