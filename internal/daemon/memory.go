package daemon

import (
	"bufio"
	"bytes"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/smtp"
)

// LimitMemory tells the garbage collector how much memory the process may use, and returns it; 0: no limit is known.
// The environment variable GOMEMLIMIT goes first, then memory.limit, then nine tenths of the control group's limit:
// what is missing to the whole is for the kernel's buffers. It concerns the whole process, so that only main calls it.
func LimitMemory(cfg *config.Config, logger *slog.Logger) int64 {
	limit, from := int64(cfg.Memory.Limit), "memory.limit"
	switch group := groupLimit(os.DirFS("/")); {
	case os.Getenv("GOMEMLIMIT") != "":
		limit, from = debug.SetMemoryLimit(-1), "GOMEMLIMIT" // the runtime has taken it already
	case limit == 0 && group > 0:
		limit, from = group-group/10, "control group"
	}
	if limit <= 0 || limit == math.MaxInt64 {
		return 0
	}
	debug.SetMemoryLimit(limit)
	logger.Info("memory is limited", "octets", limit, "by", from)
	return limit
}

// noLimit is what version 1 of control groups says for none, rounded down to pages, and anything as absurd.
const noLimit = 1 << 60

// groupLimit returns the lowest memory limit of the process's control group and those around it, in octets; 0: none.
// Both versions are understood (cgroups(7); memory.limit_in_bytes, memory.max).
func groupLimit(root fs.FS) int64 {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	lowest := int64(0)
	for lines := bufio.NewScanner(bytes.NewReader(groups)); lines.Scan(); {
		_, rest, _ := strings.Cut(lines.Text(), ":")
		controllers, group, ok := strings.Cut(rest, ":")
		switch {
		case !ok:
		case controllers == "":
			lowest = lower(lowest, limitOf(root, "sys/fs/cgroup", group, "memory.max"))
		case strings.Contains(","+controllers+",", ",memory,"):
			lowest = lower(lowest, limitOf(root, "sys/fs/cgroup/memory", group, "memory.limit_in_bytes"))
		}
	}
	return lowest
}

// limitOf walks from a group up to the root. What a container cannot see of the path is passed over.
func limitOf(root fs.FS, mount, group, file string) int64 {
	lowest := int64(0)
	for at := path.Clean("/" + group); ; at = path.Dir(at) {
		text, err := fs.ReadFile(root, path.Join(mount, at, file))
		if n, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && bad == nil && n < noLimit {
			lowest = lower(lowest, n)
		}
		if at == "/" {
			return lowest
		}
	}
}

func lower(a, b int64) int64 {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// newMemory makes the budget for bodies in flight and returns which part of it fresh messages may keep. limit is that of
// the process, 0: none.
func newMemory(cfg *config.Config, limit int64, logger *slog.Logger) (budget *smtp.Budget, kept int64) {
	octets := int64(cfg.Memory.InFlight)
	if limit > 0 && octets > limit/2 {
		least := 2 * int64(cfg.Limits.MessageSize)
		for i := range cfg.Listeners {
			least = max(least, 2*int64(cfg.Listeners[i].Limits.MessageSize))
		}
		octets = max(limit/2, least)
		logger.Warn("memory.in_flight is more than half of the memory there is: less is used",
			"in_flight", int64(cfg.Memory.InFlight), "used", octets, "limit", limit)
		if octets > limit/2 {
			logger.Warn("memory is short for messages of this size: lower limits.message_size", "limit", limit)
		}
	}
	if kept = min(int64(cfg.Memory.Bodies), octets/2); kept == 0 {
		kept = -1 // to the spool zero means its default
	}
	return smtp.NewBudget(octets), kept
}

// memoryMetrics shows the budget.
type memoryMetrics struct{ budget *smtp.Budget }

var (
	inFlightDesc = prometheus.NewDesc("godwit_memory_in_flight_bytes",
		"Memory of message bodies in flight: received, and read back for delivery. Lastingly near the limit, mail is put "+
			"off with 452 or waits: raise memory.in_flight.", []string{"use"}, nil)
	inFlightLimitDesc = prometheus.NewDesc("godwit_memory_in_flight_limit_bytes",
		"Limit of the memory of message bodies in flight.", nil, nil)
	memoryWaitsDesc = prometheus.NewDesc("godwit_memory_waiting_attempts",
		"Attempts and reports that wait for memory to read their message. A lasting rise means that memory.in_flight is "+
			"too small for the messages there are.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (m memoryMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- inFlightDesc
	ch <- inFlightLimitDesc
	ch <- memoryWaitsDesc
}

// Collect implements [prometheus.Collector].
func (m memoryMetrics) Collect(ch chan<- prometheus.Metric) {
	received, read, waiting := m.budget.Usage()
	gauge := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	gauge(inFlightDesc, received, "received")
	gauge(inFlightDesc, read, "read_back")
	gauge(inFlightLimitDesc, m.budget.Limit())
	gauge(memoryWaitsDesc, int64(waiting))
}
