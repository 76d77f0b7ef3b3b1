package crash

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// outcome is what a submitter knows of a submission.
type outcome string

const (
	begun    outcome = ""         // no more is known: treated as unknown
	accepted outcome = "accepted" // the final reply was 250
	refused  outcome = "refused"  // a reply refused it, or was asked to forget it
	aborted  outcome = "aborted"  // its end never left the submitter
	unknown  outcome = "unknown"  // its end left, and no reply came
)

// submission is one line of submit.jsonl. There are two for each: when it begins, and with its outcome.
type submission struct {
	Token   string    `json:"token"` // the Message-ID
	Outcome outcome   `json:"outcome,omitempty"`
	Time    time.Time `json:"time"`

	// When it begins.
	To     []string `json:"to,omitempty"`     // recipients that are fine
	Silent bool     `json:"silent,omitempty"` // NOTIFY=NEVER: no reports
	Doomed bool     `json:"doomed,omitempty"` // the message is one that must be refused
	Mode   string   `json:"mode,omitempty"`
	Size   int      `json:"size,omitempty"`
	Hash   string   `json:"hash,omitempty"`

	// At its end.
	Dropped  []string `json:"dropped,omitempty"`  // of To, refused at RCPT
	Code     int      `json:"code,omitempty"`     // of the deciding reply
	Enhanced string   `json:"enhanced,omitempty"` // of it, if it refused
	Message  string   `json:"message,omitempty"`  // id in the 250
	Err      string   `json:"error,omitempty"`

	// What the judge makes of it.
	ended time.Time
}

// reception is one line of sink.jsonl: one recipient of one message that was complete.
type reception struct {
	Token    string    `json:"token"` // Message-ID
	To       string    `json:"to"`
	Site     string    `json:"site"`
	Accepted bool      `json:"accepted"` // the reply was a 250
	Replied  bool      `json:"replied"`  // and left in full
	Hash     string    `json:"hash"`     // of what is below the trace header
	Traced   bool      `json:"traced"`   // the trace header is one Received field
	Arrived  time.Time `json:"arrived"`  // when its last octet was read
	Time     time.Time `json:"time"`     // after the reply was written, or could not be

	// Unheard says that the remote's replies may be none that can be understood. The judge is told by the row.
	Unheard bool `json:"-"`

	// Of a report that came back.
	About  string   `json:"about,omitempty"`  // token
	Failed []string `json:"failed,omitempty"` // recipients
}

// delivered reports that the server can have read the whole 250.
func (r *reception) delivered() bool { return r.Accepted && r.Replied }

// kill is one line of kill.jsonl: one life of the process.
type kill struct {
	Started time.Time `json:"started"`
	Ready   time.Time `json:"ready,omitzero"`
	Began   time.Time `json:"began"` // before the signal was sent
	Gone    time.Time `json:"gone"`  // the process is no more

	// Cut is when the power was gone at the latest, if it was a power cut: what leaves afterwards is no acknowledgement.
	Cut time.Time `json:"cut,omitzero"`
	// Fault says that the disk failed the server, which then ended by itself.
	Fault bool `json:"fault,omitempty"`
}

// power reports that the machine lost its power, as far as the disk goes.
func (k *kill) power() bool { return !k.Cut.IsZero() }

// ledger appends lines to a file. Each is with the operating system before add returns.
type ledger struct {
	mu   sync.Mutex
	file *os.File
	err  error // the first one: a ledger with a gap proves nothing
}

func newLedger(name string) (*ledger, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make ledger: %w", err)
	}
	return &ledger{file: f}, nil
}

func (l *ledger) add(lines ...any) {
	var p []byte
	var errs []error
	for _, line := range lines {
		b, err := json.Marshal(line)
		p = append(append(p, b...), '\n')
		errs = append(errs, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.file.Write(p)
	if l.err == nil {
		l.err = errors.Join(append(errs, err)...)
	}
}

// restart drops what the ledger has.
func (l *ledger) restart() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Truncate(0) // lines are appended
}

func (l *ledger) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.err, l.file.Close())
}

// readLines reads a file of JSON lines. A file that is not there has none.
func readLines[T any](name string) ([]T, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	defer f.Close()
	var list []T
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("read ledger %s, line %d: %w", name, len(list)+1, err)
		}
		list = append(list, v)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read ledger %s: %w", name, err)
	}
	return list, nil
}

// The names of the ledgers in the directory of a campaign.
const (
	submitLedger = "submit.jsonl"
	sinkLedger   = "sink.jsonl"
	killLedger   = "kill.jsonl"
)

// evidence is all that the judge goes by.
type evidence struct {
	submissions []submission
	receptions  []reception
	kills       []kill
	events      []told
	stalled     time.Duration // how long the disk stood still, which nobody is late for
}

// readEvidence reads the ledgers in dir and the event log in events.
func readEvidence(dir, events string) (*evidence, error) {
	var e evidence
	var errs [4]error
	e.submissions, errs[0] = readLines[submission](filepath.Join(dir, submitLedger))
	e.receptions, errs[1] = readLines[reception](filepath.Join(dir, sinkLedger))
	e.kills, errs[2] = readLines[kill](filepath.Join(dir, killLedger))
	e.events, errs[3] = readEvents(events)
	return &e, errors.Join(errs[:]...)
}

// nobody reports a recipient that its provider does not know.
func nobody(address string) bool { return strings.HasPrefix(address, "nobody") }

// local reports a recipient of ours, where only reports come.
func local(address string) bool { return strings.HasSuffix(address, "@"+homeDomain) }
