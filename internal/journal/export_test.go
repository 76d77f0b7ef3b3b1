package journal

// Offset is the place of p in its segment.
func (p Position) Offset() int64 { return p.offset() }
