package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of octets.
type Size int64

// Binary units.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

var sizeUnits = []struct {
	name string
	size int64
}{
	{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1}, {"", 1},
}

// String returns the shortest exact form, in binary units before decimal ones: "64MiB", "25MB", "1000".
func (s Size) String() string {
	for _, u := range sizeUnits {
		if u.size > 1 && int64(s)%u.size == 0 && s != 0 {
			return strconv.FormatInt(int64(s)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// ParseSize reads a number of octets with an optional unit: B, kB, MB, GB (powers of 1000), KiB, MiB, GiB (powers of
// 1024).
func ParseSize(s string) (Size, error) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789_"))
	unit := strings.TrimSpace(s[digits:])
	n, err := strconv.ParseInt(strings.ReplaceAll(s[:digits], "_", ""), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size; write a whole number with a unit, such as 25MB or 64MiB", s)
	}
	for _, u := range sizeUnits {
		if u.name == unit {
			if n > math.MaxInt64/u.size {
				return 0, fmt.Errorf("%q is too large", s)
			}
			return Size(n * u.size), nil
		}
	}
	switch strings.ToLower(unit) {
	case "k", "kb", "kib":
		return 0, fmt.Errorf("%q has no known unit; write %dkB (thousands) or %dKiB (times 1024)", s, n, n)
	case "m", "mb", "mib":
		return 0, fmt.Errorf("%q has no known unit; write %dMB (millions) or %dMiB (times 1024*1024)", s, n, n)
	case "g", "gb", "gib":
		return 0, fmt.Errorf("%q has no known unit; write %dGB or %dGiB", s, n, n)
	}
	return 0, fmt.Errorf("%q has no known unit; write B, kB, MB, GB, KiB, MiB or GiB", s)
}

// ParseDuration reads whole or decimal numbers with units, largest first: "3d", "1h30m", "500ms". A day (d) is 24
// hours, a week (w) seven days. Zero needs no unit.
func ParseDuration(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	if s == "0" {
		return 0, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("%q has no unit; write %ss, %sm, %sh or %sd", s, s, s, s, s)
	}
	rest, total := s, time.Duration(0)
	for _, u := range []struct {
		name byte
		size time.Duration
	}{{'w', 7 * day}, {'d', day}} {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if digits == 0 || digits == len(rest) || rest[digits] != u.name {
			continue
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil || n > int64((math.MaxInt64-total)/u.size) {
			return 0, fmt.Errorf("%q is too long", s)
		}
		total += time.Duration(n) * u.size
		rest = rest[digits+1:]
	}
	if rest == "" && rest != s {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration; write numbers with units, such as 90s, 30m, 4h or 3d", s)
	case d < 0:
		return 0, fmt.Errorf("%q is negative; write a duration of zero or more", s)
	case d > math.MaxInt64-total:
		return 0, fmt.Errorf("%q is too long", s)
	}
	return total + d, nil
}

// FormatDuration returns the form that [ParseDuration] reads back, without parts that are zero: "90s" is "1m30s". Below
// four days hours are not gathered into days, as people say them: "72h", but "30d".
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	const day = 24 * time.Hour
	var b []byte
	for _, u := range []struct {
		name byte
		size time.Duration
		from time.Duration
	}{{'d', day, 4 * day}, {'h', time.Hour, 0}, {'m', time.Minute, 0}} {
		if n := d / u.size; n > 0 && d >= u.from {
			b = append(strconv.AppendInt(b, int64(n), 10), u.name)
			d -= n * u.size
		}
	}
	if d > 0 {
		b = append(b, d.String()...)
	}
	return string(b)
}
