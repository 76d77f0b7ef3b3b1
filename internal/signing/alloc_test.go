//go:build !race

package signing

import (
	"context"
	"testing"
)

// TestAllocations holds what signing may allocate besides its primitives. The race detector has pools forget at random.
func TestAllocations(t *testing.T) {
	s := newSigner(t, Options{Keys: ring{newKey(t, "r", nothing{rsaKey()}), newKey(t, "e", nothing{edKey()})}})
	pieces, dst := [][]byte{letter10KB()}, make([]byte, 0, 4096)
	n := testing.AllocsPerRun(200, func() {
		if _, err := s.Sign(context.Background(), dst, pieces, domain, ""); err != nil {
			t.Fatal(err)
		}
		s.Sent(domain, "", "<1@example.com>", 1)
	})
	if n > 6 {
		t.Errorf("%v allocations beyond the primitives, at most 6 are wanted", n)
	}
}
