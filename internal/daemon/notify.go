package daemon

import (
	"fmt"
	"net"
	"os"
)

// notify tells the service manager about a change of state (sd_notify(3)): "READY=1", "STOPPING=1". Without a manager it
// does nothing. A name that begins with '@' lies in the abstract namespace, where its first octet is NUL.
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] == '@' {
		name = "\x00" + name[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	return nil
}
