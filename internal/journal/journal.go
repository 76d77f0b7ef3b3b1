package journal

import (
	"context"
	"errors"

	"github.com/godwit-mta/godwit/smtp"
)

// Position says where a record stands. It is opaque to all but the engine that gave it, ordered by age, and the same
// after a reopen, a crash or a copy of the journal's directory. Zero is before the first record.
type Position uint64

// Kind says what a record is. Its meaning belongs to the writer; the engine stores it. Zero is allowed.
type Kind uint8

// ExtentID names an extent. IDs grow with age and are never used twice.
type ExtentID uint64

// What callers branch on. All are wrapped with what was being done.
var (
	// ErrFailed: a write or sync failed. Nothing handed over since will ever become durable through this journal, and
	// what was in flight may or may not be found after a restart. Only a new Open, normally a new process, helps.
	ErrFailed = errors.New("journal has failed")
	// ErrClosed: the journal takes nothing any more. The batch was not written.
	ErrClosed = errors.New("journal is closed")
	// ErrFenced: another holder opened the journal with a higher epoch.
	ErrFenced = errors.New("journal belongs to a newer epoch")
	// ErrLocked: another process has the journal open.
	ErrLocked = errors.New("journal is in use")
	// ErrOwner: the journal belongs to somebody else.
	ErrOwner = errors.New("journal belongs to another owner")
	// ErrDamaged: the bytes at a position are not what was written.
	ErrDamaged = errors.New("journal record is damaged")
	// ErrRemoved: the extent with the position has been removed.
	ErrRemoved = errors.New("journal extent has been removed")
	// ErrNoRecord: no durable record begins at the position.
	ErrNoRecord = errors.New("no journal record at this position")
	// ErrTooLarge: the batch exceeds what a record or a batch may hold. It was not written.
	ErrTooLarge = errors.New("journal batch is too large")
	// ErrFull: the disk is nearly full, so nothing with a body is taken until there is room again. The batch was not
	// written.
	ErrFull = errors.New("journal has no room")
	// ErrSealed: the record is encrypted, and no Sealer was given to open it.
	ErrSealed = errors.New("journal record is encrypted")
	// ErrReadOnly: the journal was opened for reading only.
	ErrReadOnly = errors.New("journal is read-only")
	// ErrStays: the file system did not remove the extent. It is whole and stays; trying again later is harmless.
	ErrStays = errors.New("journal extent cannot be removed")
	// ErrInUse: the extent is still being written and cannot be removed.
	ErrInUse = errors.New("journal extent is in use")
)

// Record is one thing that happened. Meta and Body are only read by the engine. They must not change until the batch is
// finished; the engine holds its own reference to the body for as long as it needs it.
type Record struct {
	Kind     Kind
	Meta     []byte     // at most MaxMeta octets
	Body     *smtp.Body // nil: none
	Position Position   // set by the engine when the batch is finished without error

	wire wire
}

// Batch is a group of records that become durable together or not at all. The zero value with Records is ready to
// use. After it is finished (Append returned, or Done was called) it may be filled and handed over again; reusing one
// saves its allocations.
type Batch struct {
	Records []Record

	// Lazy says that nobody waits for this batch: it does not force a sync of its own but rides with the next one, at
	// most 10 ms later (Options.LazyDelay).
	Lazy bool

	// Done tells the verdict of a batch that was given to Submit: nil when it is durable. It is called exactly once,
	// in the order of submission, by the engine's committer, so it must be quick and never block or append. Append
	// does not call it. After Close, Submit itself calls it.
	Done func(*Batch, error)

	state batchState
}

// Limits of one record and one batch.
const (
	MaxMeta    = 16 << 20 // octets of one record's Meta
	MaxRecords = 1 << 16  // records of one batch
	MaxBatch   = 1 << 30  // octets of one batch, headers included
)

// Journal is an append-only sequence of records with one writer. All methods may be called from many goroutines.
//
// What a crash leaves behind, at any moment: every batch whose Append or Done said nil, whole, in order, byte for
// byte; of the batches that were under way a prefix, each whole or not at all; nothing else.
type Journal interface {
	// Append hands b over and blocks until it is durable or failed. ctx bounds only the wait for room before the
	// hand-over: its error means that nothing was written, as ErrFull does. After nil a crash leaves the whole batch.
	// After ErrFailed a crash or restart may find all of it or nothing.
	Append(ctx context.Context, b *Batch) error

	// AppendWritten is Append for claims: it returns when the bytes have been handed to the operating system and
	// survive the end of the process (kill -9), but not yet a power cut. They become durable with the next sync, at
	// most 10 ms later. If that sync fails the journal has failed.
	AppendWritten(ctx context.Context, b *Batch) error

	// Room returns ErrFull while the disk is nearly full, or would be with octets more: whoever is about to Submit what
	// was not accepted yet asks before.
	Room(octets int64) error

	// Submit hands b over, however much is pending, and returns at once. b.Done, if set, tells its verdict.
	Submit(b *Batch)

	// Read returns the record at p with Meta (the caller's own) and Body (one reference, the caller's), checksums
	// verified. Errors: ErrNoRecord, ErrRemoved, ErrDamaged.
	Read(ctx context.Context, p Position) (Record, error)

	// NewReader returns a reader of the durable records from the first one at or after from; 0 is the oldest. Positions
	// in removed extents are stepped over. from must be 0, a record's position, an Entry.Next or an End.
	NewReader(from Position) (Reader, error)

	// End returns the position after the last durable record: everything below is durable.
	End() Position

	// Extents lists the extents, oldest first. The last one may be unsealed.
	Extents() []Extent
	// ExtentOf returns the extent that p lies in, whether or not it still exists.
	ExtentOf(p Position) ExtentID
	// Remove deletes a sealed extent and returns when that is durable. Removing one that is gone is no error. After a
	// crash during Remove the extent is whole or gone.
	Remove(ctx context.Context, id ExtentID) error
	// Roll seals the current extent, so that it can be removed, and begins a new one. An extent without records is
	// kept. A crash during Roll loses nothing.
	Roll(ctx context.Context) error

	// Owner and Epoch say who writes here and in which reign; each record belongs to them.
	Owner() string
	Epoch() uint64

	// Failed is closed when a write or sync has failed. Err then returns an ErrFailed that says why; before that, nil.
	Failed() <-chan struct{}
	Err() error

	// Damage lists what was found damaged so far, by Open, readers and Read, of this process and those before, as long
	// as the damaged bytes are kept. They are never deleted.
	Damage() []Damage

	// Run does the writing. When ctx ends it makes durable what is pending, then returns; later appends get ErrClosed.
	// It returns Err.
	Run(ctx context.Context) error

	// Close gives back files and the lock. It must not be called before Run has returned. What was appended but never
	// taken by a Run fails with ErrClosed.
	Close() error
}

// Reader walks over records without reading their bodies. It is used by one goroutine.
type Reader interface {
	// Next returns the next durable record. At the durable end it returns io.EOF, or, with wait, blocks until there
	// is more, ctx ends, or the journal has failed (ErrFailed) or was closed (ErrClosed). It may be called again
	// after io.EOF or the end of ctx. Damage is stepped over and noted in Journal.Damage. ErrRemoved: the extent
	// being read was removed; the next call goes on behind it.
	Next(ctx context.Context, wait bool) (Entry, error)
	Close() error
}

// Entry is one record as a Reader shows it.
type Entry struct {
	Position Position
	Next     Position // where a reader goes on after this record: the watermark of who has dealt with it
	Kind     Kind
	Meta     []byte // valid until the next call of Next
	BodySize int64  // octets
	HasBody  bool

	sealed bool
}

// Extent is a piece of the journal that is removed as a whole.
type Extent struct {
	ID     ExtentID
	First  Position // of its first record
	End    Position // after its last durable record
	Bytes  int64    // octets of the records between First and End
	Sealed bool     // nothing will be added; it may be removed
}

// Damage is a stretch of the journal whose bytes are not what was written.
type Damage struct {
	Extent ExtentID `json:"segment"`
	From   Position `json:"from"`
	To     Position `json:"to"`
	Reason string   `json:"reason"`
}
