//go:build unix

package daemon

import "syscall"

// fileLimit returns how many files the process may open, 0 if nobody knows.
func fileLimit() uint64 {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return uint64(l.Cur)
}
