package config

import (
	"net/netip"
	"testing"
	"time"
)

var netipPrefix = netip.Prefix{} // compared as a plain value

func TestParseSize(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want Size
		back string
	}{
		{"0", 0, "0"}, {"1", 1, "1"}, {"1000", 1000, "1kB"}, {"1024", 1024, "1KiB"}, {"25MB", 25e6, "25MB"}, {"64 MiB", 64 << 20, "64MiB"},
		{"1_000_000", 1e6, "1MB"}, {"2GiB", 2 << 30, "2GiB"}, {"3B", 3, "3"}, {"5kB", 5000, "5kB"}, {"5KB", 5000, "5kB"},
	} {
		got, err := ParseSize(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", tt.in, got, err, tt.want)
		}
		if got.String() != tt.back {
			t.Errorf("%d is written %s, want %s", got, got, tt.back)
		}
	}
	for _, in := range []string{"", "MB", "-1", "1.5MB", "9223372036854775807kB", "99999999999999999999", "1TB", "1 M B", "1m"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %d", in, got)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, tt := range []struct {
		in   string
		want time.Duration
		back string
	}{
		{"0", 0, "0s"}, {"0s", 0, "0s"}, {"0d", 0, "0s"}, {"500ms", 500 * time.Millisecond, "500ms"}, {"90s", 90 * time.Second, "1m30s"},
		{"1h30m", 90 * time.Minute, "1h30m"}, {"72h", 3 * day, "72h"}, {"3d", 3 * day, "72h"}, {"3d12h", 84 * time.Hour, "84h"},
		{"2w", 14 * day, "14d"}, {"1w1d1h", 8*day + time.Hour, "8d1h"}, {"1.5h", 90 * time.Minute, "1h30m"}, {"36h", 36 * time.Hour, "36h"},
	} {
		got, err := ParseDuration(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", tt.in, got, err, tt.want)
		}
		if back := FormatDuration(got); back != tt.back {
			t.Errorf("%v is written %s, want %s", got, back, tt.back)
		}
	}
	for _, in := range []string{"", "30", "1.5", "-3m", "soon", "d", "1d2w", "1.5d", "99999999w", "106751d24h", "1dd", "9999999999h", "1d -1h"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v", in, got)
		}
	}
}

// FuzzDuration wants every duration written to be read back the same.
func FuzzDuration(f *testing.F) {
	f.Add("3d12h", int64(time.Hour))
	f.Fuzz(func(t *testing.T, s string, n int64) {
		for _, d := range []time.Duration{time.Duration(max(n, -n-1)), must(ParseDuration(s))} {
			if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
				t.Fatalf("%d is written %s and read %v, %v", d, FormatDuration(d), got, err)
			}
		}
	})
}

func must(d time.Duration, err error) time.Duration {
	if err != nil {
		return 0
	}
	return d
}

func TestParseServer(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"127.0.0.1": "127.0.0.1:53", "127.0.0.1:5353": "127.0.0.1:5353", "::1": "[::1]:53", "[::1]": "[::1]:53", "[::1]:54": "[::1]:54",
	} {
		if got, err := ParseServer(in); err != nil || got.String() != want {
			t.Errorf("ParseServer(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
}
