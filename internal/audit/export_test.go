package audit

// Sum computes what the hash of a record should be.
func Sum(r *Record) Hash { return r.sum() }
