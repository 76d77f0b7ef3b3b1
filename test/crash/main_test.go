package crash

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain turns the test program into a server whose file system fails, if a scenario started it for that.
func TestMain(m *testing.M) {
	if os.Getenv(faultEnv) != "" {
		os.Exit(serveFaulty(os.Args))
	}
	goleak.VerifyTestMain(m)
}
