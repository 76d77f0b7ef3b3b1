package journal

// scanner finds the end of a segment that was not sealed: after the last batch that is whole, bodies included.
type scanner struct {
	log     *Log
	seg     *segment
	window  window
	records int64

	known  bool // synced has been found
	synced Position
}

// run returns where the records end. What is bad and had been durable is noted as damage and stepped over; what is
// bad and had not ends the segment, with all behind it.
func (s *scanner) run() (end int64, err error) {
	off := int64(headerSize)
	fresh := true
	for off < s.window.limit {
		next, bad, err := s.batch(off)
		if err != nil {
			return 0, err
		}
		if bad < 0 {
			off, fresh = next, true
			continue
		}
		synced, err := s.syncedBefore(bad)
		if err != nil {
			return 0, err
		}
		if synced <= position(s.seg.id, bad) {
			return off, nil
		}
		if fresh {
			// The file may be written to by a running server while this one only reads: what a later record knows to be
			// durable is there by now.
			fresh = false
			s.window.forget()
			continue
		}
		// The records of the batch before the bad one were acknowledged, so they stand.
		if off, err = s.stepOver(bad); err != nil {
			return 0, err
		}
		fresh = true
	}
	return min(off, s.window.limit), nil
}

// batch verifies the batch at off, or what is left of one whose begin is damaged. It returns the place behind it, or
// that of the first bad record.
func (s *scanner) batch(off int64) (next, bad int64, err error) {
	var index, count uint32
	var records int64
	for first := true; first || index < count; first = false {
		h, _, ok, err := s.window.record(off)
		if err != nil {
			return 0, 0, err
		}
		if ok {
			ok, err = s.window.body(off, &h)
			if err != nil {
				return 0, 0, err
			}
		}
		if !ok || !first && (h.index != index || h.count != count) {
			return 0, off, nil
		}
		index, count = h.index+1, h.count
		off += h.size()
		records++
	}
	s.records += records
	return off, -1, nil
}

// syncedBefore returns the highest position that any valid record behind bad knows to have been durable. Since this
// never falls from record to record, it is what the last valid one knows; and behind that one it is below whatever is
// bad.
func (s *scanner) syncedBefore(bad int64) (Position, error) {
	if s.known {
		return s.synced, nil
	}
	for off := bad + 1; ; {
		var err error
		if off, err = s.window.resync(off); err != nil {
			return 0, err
		}
		if off >= s.window.limit {
			s.known = true
			return s.synced, nil
		}
		for {
			h, _, ok, err := s.window.record(off)
			if err != nil {
				return 0, err
			}
			if !ok {
				break
			}
			s.synced = max(s.synced, h.durable)
			off += h.size()
		}
	}
}

// stepOver notes the damage at bad and returns the place behind it.
func (s *scanner) stepOver(bad int64) (next int64, err error) {
	h, _, ok, err := s.window.record(bad)
	if err != nil {
		return 0, err
	}
	reason := "checksum of the body"
	if ok {
		next = bad + h.size()
	} else {
		reason = "no valid record"
		if next, err = s.window.resync(bad + 1); err != nil {
			return 0, err
		}
	}
	s.log.noteDamage(s.seg, bad, next, reason)
	return next, nil
}
