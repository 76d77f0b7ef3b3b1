package queue

import (
	"context"
	"iter"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

var _ Spool = (*spool.Spool)(nil)

// Spool is what the scheduler needs of [spool.Spool]. No method is called with the scheduler's lock held, so that a
// spool may call Fresh and Due from within any of them.
type Spool interface {
	Body(ctx context.Context, m *spool.Message) (*smtp.Body, error)
	BodyNow(ctx context.Context, m *spool.Message) (*smtp.Body, error)
	Claim(ctx context.Context, key spool.QueueKey, now time.Time, limit int,
		next func(*spool.Entry) time.Time) ([]*spool.Entry, error)
	Return(entries []*spool.Entry)
	ReturnHeld(entries []*spool.Entry, reason string)
	Quarantine(entries []*spool.Entry, why error)
	Settle(a *spool.Attempt, done func(error))
	Hold(ctx context.Context, f spool.Filter, reason string) (int, error)
	Release(ctx context.Context, f spool.Filter) (int, error)
	Reschedule(ctx context.Context, f spool.Filter, due time.Time) (int, error)
	Finish(ctx context.Context, f spool.Filter, r spool.Result) (int, error)

	Aging(now time.Time, limit int) []*spool.Entry
	Unreported(now time.Time, limit int) ([]spool.Report, error)
	AcceptReport(ctx context.Context, dsn *spool.Message, body *smtp.Body, about *spool.Message, indices []int) error
	AcceptDelayNotice(ctx context.Context, dsn *spool.Message, body *smtp.Body, about *spool.Message, indices []int) error

	Entries(ctx context.Context, f spool.Filter, limit int, after spool.EntryID) iter.Seq2[*spool.Entry, error]
	Message(ctx context.Context, id message.ID) (*spool.Message, []*spool.Entry, error)
	Queue(key spool.QueueKey) (spool.QueueStat, bool)
	Queues() []spool.QueueStat
}
