package crash

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// shutdownRequest is EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32), and noLogFlush its flag that drops what the file
// system's own log has not written yet.
const (
	shutdownRequest = 0x8004587d
	noLogFlush      = 2
)

// cutPower makes the disk forget everything that was not synced and fail from now on, as a machine without power
// does.
func (d *disk) cutPower() error {
	f, err := os.Open(d.seen(d.point))
	if err != nil {
		return fmt.Errorf("cut power: %w", err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), shutdownRequest, noLogFlush); err != nil {
		return fmt.Errorf("cut power: %w", err)
	}
	return nil
}
