package queue

// turns says which queue is next when there is more work than slots: tenants take turns, and the queues of one tenant
// take turns among themselves, so that neither a tenant nor a domain with a million entries delays another by more
// than one attempt.
//
// A queue that lost its work while it stood in line is found out when its turn comes; nothing is taken out of the
// middle.
type turns struct {
	class   class
	tenants deque[*tenant]
}

// class parts the queues by what is known of their destination. Those that have not answered lately share a bounded
// part of the slots, so that dead hosts with their long timeouts never hold up those that answer.
type class uint8

const (
	proven   class = iota // the last attempt reached the destination
	unproven              // no attempt yet, or the last one failed to get there
	classes
)

// tenant is what the scheduler knows of one tenant while it has a queue in memory.
type tenant struct {
	name     string
	queues   int // in memory
	room     int // what its entries take of the windows
	claiming int // what claims under way may come to take
	active   int // slots in use, in all and by class
	shares   [classes]int
	line     [classes]deque[*queue]
}

// add puts q at the end of its tenant's line.
func (t *turns) add(q *queue) {
	line := &q.tenant.line[t.class]
	if line.Push(q); line.Len() == 1 {
		t.tenants.Push(q.tenant)
	}
}

// next takes the queue whose turn it is.
func (t *turns) next() *queue {
	owner, ok := t.tenants.Pop()
	if !ok {
		return nil
	}
	q, _ := owner.line[t.class].Pop()
	if owner.line[t.class].Len() > 0 {
		t.tenants.Push(owner)
	}
	return q
}

func (t *turns) empty() bool { return t.tenants.Len() == 0 }
