// Package api holds the words of Godwit's HTTP interface: what a request carries, what an answer looks like, and a
// client that speaks it. The command line is built on it, and so can any Go program be.
//
// Today the interface is served on the admin socket, data_dir/admin.sock, whose file permission is the credential:
//
//	c := api.NewSocketClient("/var/lib/godwit/admin.sock")
//	list, err := c.Queues(ctx, api.QueueQuery{Limit: 20})
//
// Times are RFC 3339, durations are seconds, sizes are octets. Errors are RFC 9457 problems, see [Problem].
package api

import "time"

// QueueQuery selects and sorts queues. The zero value asks for the 100 queues with the most entries.
type QueueQuery struct {
	Tenant string `json:"tenant,omitempty"`
	Domain string `json:"domain,omitempty"` // exact domain
	State  string `json:"state,omitempty"`  // waiting, claimed or held: queues that have such entries
	Limit  int    `json:"limit,omitempty"`  // 1 to 10000; 0 is 100
}

// QueueList is the answer to a QueueQuery.
type QueueList struct {
	Queues  []Queue `json:"queues"`
	Total   int     `json:"total"`   // queues that match, listed or not
	Entries int     `json:"entries"` // entries in all queues that match
}

// Queue is the entries of one tenant for one destination domain, in numbers.
type Queue struct {
	Tenant   string     `json:"tenant"`
	Domain   string     `json:"domain"`
	Waiting  int        `json:"waiting"`
	Claimed  int        `json:"claimed"` // in an attempt, or about to be
	Held     int        `json:"held"`
	Oldest   *time.Time `json:"oldest,omitempty"` // acceptance of the oldest entry
	NextDue  *time.Time `json:"next_due,omitempty"`
	Sessions int        `json:"sessions"` // attempts running now
	Why      Why        `json:"why"`
}

// Why says in an operator's words why something waits.
type Why struct {
	Code  string     `json:"code"` // closed list, for programs
	Text  string     `json:"text"` // for people
	Until *time.Time `json:"until,omitempty"`
}

// QueueDetail is one queue with its next entries.
type QueueDetail struct {
	Queue   Queue   `json:"queue"`
	Entries []Entry `json:"entries"`
	More    bool    `json:"more"` // entries beyond those listed
}

// Entry is one recipient of one message as the spool holds it.
type Entry struct {
	ID          string     `json:"id"`
	Message     string     `json:"message"`
	Tenant      string     `json:"tenant"`
	Queue       string     `json:"queue"`
	Sender      string     `json:"sender"`
	Recipient   string     `json:"recipient"`
	State       string     `json:"state"`
	Size        int64      `json:"size"`
	Received    time.Time  `json:"received"`
	Expires     time.Time  `json:"expires"`
	Attempts    int        `json:"attempts"`
	LastAttempt *time.Time `json:"last_attempt,omitempty"`
	LastReply   string     `json:"last_reply,omitempty"` // the remote's words
	LastReason  string     `json:"last_reason,omitempty"`
	LastHost    string     `json:"last_host,omitempty"`
	NextAttempt *time.Time `json:"next_attempt,omitempty"`
	Why         Why        `json:"why"`
}

// Message is all that is known of one message: what the spool still holds, and what the event log tells.
type Message struct {
	ID       string            `json:"id"`
	InSpool  bool              `json:"in_spool"`
	Tenant   string            `json:"tenant,omitempty"`
	Sender   string            `json:"sender,omitempty"`
	Size     int64             `json:"size,omitempty"`
	Received *time.Time        `json:"received,omitempty"`
	Expires  *time.Time        `json:"expires,omitempty"`
	Entries  []Entry           `json:"entries"`           // those not final
	Events   []TimelineEvent   `json:"events"`            // oldest first
	More     bool              `json:"events_more"`       // the timeline was cut
	Headers  map[string]string `json:"headers,omitempty"` // From, Subject, Message-ID as accepted
}

// TimelineEvent is one line of the event log, as far as a person reads it. Raw is the whole event.
type TimelineEvent struct {
	Time      time.Time `json:"time"`
	Type      string    `json:"type"`
	Recipient string    `json:"recipient,omitempty"`
	Text      string    `json:"text"`
	Raw       any       `json:"event,omitempty"`
}

// Verb is an administrative act upon entries.
type Verb string

// The verbs. Each is durable when its answer arrives.
const (
	Hold    Verb = "hold"    // keep until released; entries that wait, and with Selection.Queue or Sender also later ones
	Release Verb = "release" // undo hold
	Retry   Verb = "retry"   // due now
	Bounce  Verb = "bounce"  // final: the sender gets a report
	Cancel  Verb = "cancel"  // final: nobody gets a report
)

// Selection says which entries a verb is for. Fields are joined by and; at least one is needed.
type Selection struct {
	Message   string `json:"message,omitempty"`
	Entry     string `json:"entry,omitempty"`
	Queue     string `json:"queue,omitempty"` // destination domain
	Tenant    string `json:"tenant,omitempty"`
	Sender    string `json:"sender,omitempty"`    // address, or @domain
	Recipient string `json:"recipient,omitempty"` // address
	State     string `json:"state,omitempty"`
	All       bool   `json:"all,omitempty"` // every entry there is
}

// Action is a verb, its selection, and why.
type Action struct {
	Verb      Verb      `json:"verb"`
	Selection Selection `json:"selection"`
	Reason    string    `json:"reason,omitempty"`
}

// ActionResult says how many entries an action changed.
type ActionResult struct {
	Changed int    `json:"changed"`
	Rule    string `json:"rule,omitempty"` // a lasting rule that was set or removed, in words
}

// SpoolStats is the spool in numbers. Accepted is always the sum of the outcomes and Queued.
type SpoolStats struct {
	Accepted    uint64 `json:"accepted"` // entries, as are all that follow
	Delivered   uint64 `json:"delivered"`
	Bounced     uint64 `json:"bounced"`
	Expired     uint64 `json:"expired"`
	Suppressed  uint64 `json:"suppressed"`
	Cancelled   uint64 `json:"cancelled"`
	Queued      uint64 `json:"queued"`
	Segments    int    `json:"segments"`
	JournalSize int64  `json:"journal_bytes"`
	LiveSize    int64  `json:"live_bytes"` // of these, bodies that are needed
	MemoryBody  int64  `json:"memory_body_bytes"`
	MemoryIndex int64  `json:"memory_index_bytes"` // the index's cache and what is not yet in its tables
	Damaged     int    `json:"damaged_ranges"`
}

// Status is the server in a few words.
type Status struct {
	Version   string            `json:"version"`
	Started   time.Time         `json:"started"`
	Ready     bool              `json:"ready"`
	Hostname  string            `json:"hostname"`
	Listeners map[string]string `json:"listeners"` // name to bound address
	HTTP      string            `json:"http,omitempty"`
	Sessions  int               `json:"sessions"`
}

// ReloadResult says what a reload did. NeedRestart lists changed keys that keep their old value until a restart.
type ReloadResult struct {
	Changed     []string `json:"changed"`
	NeedRestart []string `json:"need_restart"`
}

// Problem is an RFC 9457 problem detail; it is also the error that the client returns.
type Problem struct {
	Type   string `json:"type,omitempty"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Field  string `json:"field,omitempty"` // of the request, that is to be written otherwise
}

// Error returns the detail, or the title if there is none.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}
