package journal

// batchState is what the engine keeps in a batch between hand-over and verdict.
type batchState struct {
	wait    chan struct{} // one slot, made at first use and kept for reuse
	err     error
	bytes   int64
	written bool // the waiter is content when the bytes are written
	waiting bool // somebody waits on wait; Done is not called
	roll    bool
}
