package outbox

import (
	"strconv"
	"strings"

	"github.com/godwit-mta/godwit/internal/journal"
)

// place says which event of the journal comes next: of the record at from, or the first one after it, the first skip
// events are told already.
type place struct {
	from journal.Position
	skip int
}

// The id of an event from the journal is the position of its record in 16 hexadecimal digits, a hyphen, and the number
// of the event within the record.
const positionDigits = 16

func appendID(dst []byte, p journal.Position, index int) []byte {
	const hex = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hex[p>>shift&15])
	}
	return appendInt(append(dst, '-'), index)
}

// parseID reads an id that appendID wrote; ids of other events are no error but not ok.
func parseID(id string) (p journal.Position, index int, ok bool) {
	position, number, found := strings.Cut(id, "-")
	if !found || len(position) != positionDigits {
		return 0, 0, false
	}
	n, err := strconv.ParseUint(position, 16, 64)
	if err != nil {
		return 0, 0, false
	}
	i, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return 0, 0, false
	}
	return journal.Position(n), int(i), true
}

func appendInt(dst []byte, n int) []byte { return strconv.AppendInt(dst, int64(n), 10) }
