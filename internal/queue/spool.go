package queue

import (
	"context"
	"time"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
)

// Spool is what the scheduler needs of [spool.Spool]. No method is called with the scheduler's lock held, so that a spool may
// call Fresh and Due from within any of them.
type Spool interface {
	Body(ctx context.Context, m *spool.Message) (*smtp.Body, error)
	Claim(ctx context.Context, key spool.QueueKey, now time.Time, limit int, next func(*spool.Entry) time.Time) ([]*spool.Entry, error)
	Return(entries []*spool.Entry)
	ReturnHeld(entries []*spool.Entry, reason string)
	Settle(a *spool.Attempt, done func(error))
	Queue(key spool.QueueKey) (spool.QueueStat, bool)
	Queues() []spool.QueueStat
}
