package queue

import (
	"context"
	"sync"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
)

// Deliverer makes attempts. The queue decides when one is made and what happens after it; how mail reaches a site is
// the Deliverer's business alone. All methods are called from many goroutines at once.
type Deliverer interface {
	// Deliver makes one attempt with the job's entries and returns when each of them has a result. It is called on a
	// worker's goroutine and may take as long as the timeouts of RFC 5321, 4.5.3.2 allow. ctx is done only when the
	// server aborts (the drain time is over); whatever had no decision by then gets the outcome spool.None and goes
	// back untried. The job and all it refers to may be used until Deliver returns.
	Deliver(ctx context.Context, j *Job) Verdict

	// Site names the set of MX hosts that receives mail for domain, if that is known without asking anyone. It is
	// called with the queue's lock held: it answers from memory, quickly, and calls nothing of the queue.
	Site(domain string) (site string, ok bool)
}

// Verdict is what one call of Deliver found.
type Verdict struct {
	// Attempt is never nil. Its Entries are the job's, in the job's order, with one result each. A Deferred result
	// needs no NextDue: the queue sets it from the schedule. An entry with the outcome spool.None was not tried; it is
	// given back and tried again soon, and the try does not count.
	Attempt *spool.Attempt

	// Unreadable, if not nil, says that the message's bytes are lost, and that nothing was tried. Its entries are held
	// until an operator decides, so that the rest of the queue goes on.
	Unreadable error

	// Destination says that the attempt failed for a reason that concerns everyone who mails there (no address found,
	// no connection, refused at the greeting), and nothing about these recipients. After a few such failures the queue
	// is suspended as a whole and probed with one entry at a time. False when any recipient got an answer of its own.
	Destination bool

	// RetryAfter, if not nil, is parallel to Attempt.Results: how long the site asks to wait before the next attempt
	// (greylisting, "try again in 5 minutes"). Zero means the schedule alone decides. It only counts for Deferred
	// results. What can be tried again this instant (a kept connection found closed, 452 too many recipients) the
	// Deliverer tries again itself.
	RetryAfter []time.Duration
}

// Job is the work of one attempt: entries of one message for one site. Most have all entries of the message in one
// queue; when other queues hold entries of the same message for the same site (several domains, one set of MX hosts),
// these come with it.
type Job struct {
	Message *spool.Message
	Key     spool.QueueKey // the queue whose turn it is; Key.Domain is what is resolved
	Entries []*spool.Entry // at least one

	// Body returns the message's bytes, retained for the caller, from memory or from the journal; it may have to wait
	// until there is memory for them. An error means the bytes cannot be read now: the entries get the outcome
	// spool.None.
	Body func(ctx context.Context) (*smtp.Body, error)
	// BodyNow is Body for who holds something that others need meanwhile, such as a connection: if there is no memory
	// it fails at once with smtp.ErrNoMemory. It may be nil; then Body does not wait either.
	BodyNow func(ctx context.Context) (*smtp.Body, error)

	mu    sync.Mutex
	phase Phase
}

// PhaseMemory is the name of the phase in which an attempt waits for memory to read the message back.
const PhaseMemory = "memory"

// Phase is how far an attempt has come, for people who ask why an entry is still there.
type Phase struct {
	Name  string    // "resolving", "connecting", "MAIL", "RCPT", "DATA", ...; empty before the first step
	Host  string    // MX host it talks to, once chosen
	Since time.Time // when this phase began
}

// Enter notes that the attempt has come to the named phase with host. It is cheap and may be called as often as there
// are phases.
func (j *Job) Enter(name, host string, now time.Time) {
	j.mu.Lock()
	j.phase = Phase{Name: name, Host: host, Since: now}
	j.mu.Unlock()
}

// Phase returns what Enter noted last.
func (j *Job) Phase() Phase {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.phase
}
