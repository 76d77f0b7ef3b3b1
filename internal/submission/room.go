package submission

// Roomer is an Accepter that knows beforehand when it has no room, so that a client is told at MAIL and not after it sent
// its message in vain.
type Roomer interface {
	// Room returns an error while nothing is accepted.
	Room() error
}

// full reports whether the spool has no room now.
func (d *Door) full() bool {
	r, ok := d.opts.Spool.(Roomer)
	return ok && r.Room() != nil
}
