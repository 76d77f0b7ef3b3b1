//go:build unix

package smtpclient

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// isQuiet looks at the socket's receive buffer without taking from it: quiet is an open connection with nothing to
// read.
func isQuiet(conn syscall.Conn) (quiet, known bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, true // closed on our side
	}
	var peekErr error
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, peekErr = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true
	})
	return err == nil && (errors.Is(peekErr, unix.EAGAIN) || errors.Is(peekErr, unix.EINTR)), true
}
