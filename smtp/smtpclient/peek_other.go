//go:build !unix

package smtpclient

import "syscall"

// isQuiet cannot look at a socket here; the caller falls back to a short read.
func isQuiet(syscall.Conn) (quiet, known bool) { return false, false }
