package smtptest

import (
	"bytes"
	"strconv"
	"sync"
	"time"
)

// timeField is the header field in which a load notes when the transaction of a message was begun, in microseconds
// since 1970, so that a sink on the same machine can tell how old the message was when it came.
const timeField = "Load-Time: "

// headOctets is how much of a message is looked at for the field. Servers put theirs before it.
const headOctets = 4 << 10

// ages counts how old messages of a load were when their last octet came.
type ages struct {
	mu   sync.Mutex
	seen histogram
}

// note reads the field of a message that came at now. Messages without one are none of a load.
func (a *ages) note(head []byte, now time.Time) {
	sent, ok := loadTime(head)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen.add(now.Sub(sent))
}

// snapshot returns nil if no message told its time.
func (a *ages) snapshot() *Latencies {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen.n == 0 {
		return nil
	}
	l := a.seen.latencies()
	return &l
}

func loadTime(head []byte) (time.Time, bool) {
	_, rest, ok := bytes.Cut(head, []byte("\n"+timeField))
	if !ok {
		return time.Time{}, false
	}
	digits, _, ok := bytes.Cut(rest, []byte("\r"))
	if !ok {
		return time.Time{}, false
	}
	us, err := strconv.ParseInt(string(digits), 10, 64)
	return time.UnixMicro(us), err == nil
}

func appendTimeField(dst []byte, now time.Time) []byte {
	dst = append(dst, timeField...)
	dst = strconv.AppendInt(dst, now.UnixMicro(), 10)
	return append(dst, "\r\n"...)
}
