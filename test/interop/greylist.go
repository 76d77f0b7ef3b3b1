//go:build interop

package interop

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// greylist is a policy server (Postfix, SMTPD_POLICY_README): whom it has not met, it asks to come again.
type greylist struct {
	mu sync.Mutex
	// How often a sender came with a recipient.
	met map[[2]string]int
}

func startGreylist(t *testing.T, address string) *greylist {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	g := &greylist{met: make(map[[2]string]int)}
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed below
			}
			sessions.Go(func() { g.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		sessions.Wait() // Postfix, which asks, has ended before
	})
	return g
}

func (g *greylist) serve(c net.Conn) {
	defer c.Close()
	asked := make(map[string]string)
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			asked[name] = value
			continue
		}
		action := "DUNNO"
		if g.count(asked["sender"], asked["recipient"]) == 1 {
			action = "DEFER_IF_PERMIT 4.7.1 Greylisted, come again later"
		}
		if _, err := fmt.Fprintf(c, "action=%s\n\n", action); err != nil {
			return
		}
		clear(asked)
	}
}

func (g *greylist) count(from, to string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.met[[2]string{from, to}]++
	return g.met[[2]string{from, to}]
}

// visits returns how often a sender came with a recipient.
func (g *greylist) visits(from, to string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.met[[2]string{from, to}]
}
