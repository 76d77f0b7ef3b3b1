package queue

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // times of day in answers
	goleak.VerifyTestMain(m)
}
