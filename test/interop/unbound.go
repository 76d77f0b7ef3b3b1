//go:build interop

package interop

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startUnbound serves records, lines of zone files, as the only names there are below example. About
// refused.example it refuses to answer, about silent.example it is silent.
func startUnbound(t *testing.T, dir, address string, records []string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `server:
  interface: %s@%s
  access-control: 127.0.0.0/8 allow
  directory: "%s"
  pidfile: "%s"
  chroot: ""
  username: ""
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  module-config: "iterator"
  local-zone: "." refuse
  local-zone: "example." static
  local-zone: "refused.example." refuse
  local-zone: "silent.example." deny
  local-data: "example. 60 IN SOA ns.example. hostmaster.example. 1 3600 600 86400 60"
`, host, port, dir, filepath.Join(dir, "unbound.pid"))
	for _, r := range records {
		fmt.Fprintf(&b, "  local-data: '%s'\n", r)
	}
	b.WriteString("remote-control:\n  control-enable: no\n")
	p := launch(t, dir, "unbound", "unbound", "-d", "-c", write(t, filepath.Join(dir, "unbound.conf"), b.String()))
	p.await(t, "socket at "+address, func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}
