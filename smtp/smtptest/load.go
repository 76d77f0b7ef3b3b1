package smtptest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
)

// LoadOptions says what to send. Only Address, or Dial, is needed.
type LoadOptions struct {
	Address  string // host:port
	Messages int    // 0 is 1
	Size     int    // octets of each message, header included; 0 is 10 KiB, at least 256
	Sessions int    // open at once, 0 is 1

	// From and To give sender and recipients of a message, counted from 0. Nil means sender@load.test and one
	// recipient user<i>@load.test.
	From func(i int) string
	To   func(i int) []string
	// Headers gives further header fields of a message, each with its CRLF. It may be nil.
	Headers func(i int) string

	Rate               float64 // messages begun in a second, 0 for no limit
	MessagesPerSession int     // then a session is replaced, 0 for never
	Hello              string  // empty means load.test
	LMTP               bool
	// NoPipelining and NoChunking leave these extensions unused.
	NoPipelining bool
	NoChunking   bool
	Timeouts     smtpclient.Timeouts
	// Dial replaces net.Dialer.
	Dial func(ctx context.Context) (net.Conn, error)

	// Progress is called after each message with the number done, by many sessions at once. OnResult is a ledger:
	// called for every recipient. They may be nil.
	Progress func(done int)
	OnResult func(LoadEntry)
}

// LoadEntry is what became of one recipient of one message.
type LoadEntry struct {
	Token     string // in the header field Load-Token, one for each message
	Message   int
	Recipient string
	Status    smtpclient.Status
	Reply     smtp.Reply
	Err       error // why there is no reply
	Started   time.Time
	Done      time.Time
}

// LoadResult sums a load up. Accepted, Rejected and Failed count messages and add up to Sent: taken for all
// recipients; refused for some or all by a reply; or without a reply for some, in which case it may have been
// taken.
type LoadResult struct {
	Sent              int       `json:"sent"`
	Accepted          int       `json:"accepted"`
	Rejected          int       `json:"rejected"`
	Failed            int       `json:"failed"`
	Sessions          int       `json:"sessions"` // opened
	Seconds           float64   `json:"seconds"`
	MessagesPerSecond float64   `json:"messages_per_second"` // accepted ones
	Latency           Latencies `json:"latency_ms"`          // of a transaction, from MAIL to its end
	// FirstError is what went wrong first, empty if nothing did.
	FirstError string `json:"first_error,omitempty"`
}

// Latencies are percentiles in milliseconds.
type Latencies struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

const smallestLoad = 256

func (o LoadOptions) withDefaults() (LoadOptions, error) {
	o.Messages = cmp.Or(o.Messages, 1)
	o.Size = cmp.Or(o.Size, 10<<10)
	o.Sessions = min(cmp.Or(o.Sessions, 1), max(o.Messages, 1))
	o.Hello = cmp.Or(o.Hello, "load.test")
	if o.From == nil {
		o.From = func(int) string { return "sender@load.test" }
	}
	if o.To == nil {
		o.To = func(i int) []string { return []string{"user" + strconv.Itoa(i) + "@load.test"} }
	}
	if o.Dial == nil {
		dialer := new(net.Dialer)
		o.Dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", o.Address) }
		if o.Address == "" {
			return o, errors.New("load: no address")
		}
	}
	switch {
	case o.Messages < 0, o.Sessions < 0, o.Rate < 0, o.MessagesPerSession < 0:
		return o, errors.New("load: a number is negative")
	case o.Size < smallestLoad:
		return o, fmt.Errorf("load: size %d is less than %d", o.Size, smallestLoad)
	}
	return o, nil
}

// Load sends the messages and returns when all are done, ctx has ended, or no session can be opened any more. The
// result holds in any case; the error is that of ctx, or of the last try to open a session.
func Load(ctx context.Context, o LoadOptions) (LoadResult, error) {
	o, err := o.withDefaults()
	if err != nil {
		return LoadResult{}, err
	}
	l := &load{o: o, started: time.Now()}
	l.run = strconv.FormatInt(l.started.UnixNano(), 36)
	l.payload = payload(o.Size)
	workers := make([]loadWorker, o.Sessions)
	var running sync.WaitGroup
	for i := range workers {
		running.Go(func() { workers[i].work(ctx, l) })
	}
	running.Wait()

	elapsed := time.Since(l.started)
	var result LoadResult
	var all histogram
	var errs []error
	for i := range workers {
		w := &workers[i]
		result.Accepted += w.accepted
		result.Rejected += w.rejected
		result.Failed += w.failed
		result.Sessions += w.sessions
		all.merge(&w.latency)
		errs = append(errs, w.err)
	}
	result.Sent = result.Accepted + result.Rejected + result.Failed
	result.Seconds = elapsed.Seconds()
	if elapsed > 0 {
		result.MessagesPerSecond = float64(result.Accepted) / elapsed.Seconds()
	}
	result.Latency = all.latencies()
	if first := l.firstError.Load(); first != nil {
		result.FirstError = (*first).Error()
	}
	if ctx.Err() != nil {
		return result, context.Cause(ctx)
	}
	return result, errors.Join(errs...)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// load is what all sessions share.
type load struct {
	o          LoadOptions
	run        string
	payload    []byte
	started    time.Time
	next, done atomic.Int64
	firstError atomic.Pointer[error]
}

// take gives out the next message, when its time has come.
func (l *load) take(ctx context.Context) (i int, ok bool) {
	if ctx.Err() != nil {
		return 0, false
	}
	i = int(l.next.Add(1)) - 1
	if i >= l.o.Messages {
		return 0, false
	}
	if l.o.Rate > 0 {
		due := l.started.Add(time.Duration(float64(i) / l.o.Rate * float64(time.Second)))
		return i, sleep(ctx, time.Until(due))
	}
	return i, true
}

func (l *load) failed(err error) {
	if err != nil {
		l.firstError.CompareAndSwap(nil, &err)
	}
}

// loadWorker is one session after another.
type loadWorker struct {
	conn                                 *smtpclient.Conn
	t                                    smtpclient.Transaction
	accepted, rejected, failed, sessions int
	latency                              histogram
	err                                  error
}

func (w *loadWorker) work(ctx context.Context, l *load) {
	for {
		// The session comes first, so that a peer that takes no session costs no message.
		if w.conn == nil {
			if w.err = w.open(ctx, l); w.err != nil {
				return
			}
		}
		i, ok := l.take(ctx)
		if !ok {
			break
		}
		w.send(ctx, l, i)
		if done := l.done.Add(1); l.o.Progress != nil {
			l.o.Progress(int(done))
		}
	}
	if w.conn != nil {
		l.failed(w.conn.Quit(ctx))
	}
}

// open opens a session; a few times, as servers under load refuse some.
func (w *loadWorker) open(ctx context.Context, l *load) error {
	var err error
	for wait := 50 * time.Millisecond; wait <= time.Second; wait *= 2 {
		if err = w.tryOpen(ctx, l); err == nil {
			return nil
		}
		l.failed(err)
		if !sleep(ctx, wait) {
			break
		}
	}
	return fmt.Errorf("load: open session: %w", err)
}

func (w *loadWorker) tryOpen(ctx context.Context, l *load) error {
	nc, err := l.o.Dial(ctx)
	if err != nil {
		return err
	}
	c := smtpclient.New(nc, smtpclient.Options{
		Hello: l.o.Hello, LMTP: l.o.LMTP, Timeouts: l.o.Timeouts,
		NoPipelining: l.o.NoPipelining, NoChunking: l.o.NoChunking,
	})
	if err := c.Start(ctx); err != nil {
		return errors.Join(err, c.Close())
	}
	w.conn = c
	w.sessions++
	return nil
}

func (w *loadWorker) send(ctx context.Context, l *load, i int) {
	token := l.run + "-" + strconv.Itoa(i)
	t := &w.t
	if err := w.address(l, i); err != nil {
		l.failed(err)
		w.failed++
		return
	}
	t.Body = l.body(i, token)
	err := w.conn.Send(ctx, t)
	t.Body.Release()
	t.Body = nil
	l.failed(err)
	w.latency.add(t.Result.Done.Sub(t.Result.Started))

	refused, unknown := false, false
	for k := range t.Result.Recipients {
		r := &t.Result.Recipients[k]
		switch r.Status {
		case smtpclient.Delivered:
		case smtpclient.Refused, smtpclient.TooMany:
			refused = true
			l.failed(fmt.Errorf("message %d: %s: %s", i, r.Phase, r.Reply))
		default:
			unknown = true
		}
		if l.o.OnResult != nil {
			l.o.OnResult(LoadEntry{
				Token: token, Message: i, Recipient: t.Recipients[k].String(),
				Status: r.Status, Reply: r.Reply, Err: r.Err,
				Started: t.Result.Started, Done: t.Result.Done,
			})
		}
	}
	switch {
	case unknown:
		w.failed++
	case refused:
		w.rejected++
	default:
		w.accepted++
	}
	switch most := l.o.MessagesPerSession; {
	case err != nil:
		_ = w.conn.Close() // the error that ended it is what counts
		w.conn = nil
	case !w.conn.Reusable() || most > 0 && w.conn.Transactions() >= most:
		l.failed(w.conn.Quit(ctx))
		w.conn = nil
	}
}

// address fills the envelope of message i.
func (w *loadWorker) address(l *load, i int) error {
	from := l.o.From(i)
	w.t.From = smtp.Sender{}
	if from != "" {
		path, err := smtp.ParseMailbox(from)
		if err != nil {
			return fmt.Errorf("sender %q: %w", from, err)
		}
		w.t.From.Path = path
	}
	w.t.Recipients = w.t.Recipients[:0]
	for _, to := range l.o.To(i) {
		path, err := smtp.ParseMailbox(to)
		if err != nil {
			return fmt.Errorf("recipient %q: %w", to, err)
		}
		w.t.Recipients = append(w.t.Recipients, smtp.Recipient{Path: path})
	}
	if len(w.t.Recipients) == 0 {
		return fmt.Errorf("message %d has no recipient", i)
	}
	return nil
}

// payload makes lines to cut a body from.
func payload(size int) []byte {
	const line = "The quick brown godwit flies eight days without rest over 12,000 kilometres.\r\n"
	return []byte(strings.Repeat(line, size/len(line)+1))[:size]
}

// body composes message i in wire form, of exactly Size octets if the header leaves room.
func (l *load) body(i int, token string) *smtp.Body {
	header := make([]byte, 0, smallestLoad)
	header = append(header, "From: <"...)
	header = append(header, l.o.From(i)...)
	header = append(header, ">\r\nSubject: load "...)
	header = strconv.AppendInt(header, int64(i), 10)
	header = append(header, "\r\nMessage-ID: <"...)
	header = append(header, token...)
	header = append(header, "@load.test>\r\nLoad-Token: "...)
	header = append(header, token...)
	header = append(header, "\r\n"...)
	header = appendTimeField(header, time.Now())
	if l.o.Headers != nil {
		header = append(header, l.o.Headers(i)...)
	}
	header = append(header, "\r\n"...)
	rest, end := l.payload[:max(2, l.o.Size-len(header))-2], "\r\n"
	if bytes.HasSuffix(rest, []byte{'\r'}) { // half a line end
		rest, end = rest[:len(rest)-1], ".\r\n"
	}
	body := smtp.NewBody()
	body.Append(header)
	fill(body, rest)
	fill(body, []byte(end))
	return body
}

// fill adds octets that are known to be 7-bit and free of lines that begin with a dot.
func fill(body *smtp.Body, p []byte) {
	for len(p) > 0 {
		n := copy(body.Free(), p)
		body.Extend(n)
		p = p[n:]
	}
}
