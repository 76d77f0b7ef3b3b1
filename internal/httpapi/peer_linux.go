package httpapi

import (
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// peerUser returns the name of the user at the other end of a Unix socket (SO_PEERCRED, unix(7)), its number if it has no name,
// or nothing.
func peerUser(c net.Conn) string {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || failed != nil {
		return ""
	}
	id := strconv.FormatUint(uint64(cred.Uid), 10)
	if known, err := user.LookupId(id); err == nil {
		return known.Username
	}
	return "uid " + id
}
