package daemon

import (
	"log/slog"
	"testing"
	"testing/fstest"

	"github.com/godwit-mta/godwit/internal/config"
)

// TestGroupLimit reads what containers, services and bare machines show.
func TestGroupLimit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no control groups": {nil, 0},
		"version 2, own limit": {map[string]string{
			"proc/self/cgroup":                                     "0::/system.slice/godwit.service\n",
			"sys/fs/cgroup/system.slice/memory.max":                "max\n",
			"sys/fs/cgroup/system.slice/godwit.service/memory.max": "536870912\n",
		}, 512 << 20},
		"version 2, limit above": {map[string]string{
			"proc/self/cgroup":                    "0::/a.slice/b\n",
			"sys/fs/cgroup/a.slice/memory.max":    "1000000\n",
			"sys/fs/cgroup/a.slice/b/memory.max":  "2000000\n",
			"sys/fs/cgroup/a.slice/b/memory.high": "5\n",
		}, 1_000_000},
		"version 2, container": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "300\n",
		}, 300},
		"version 1": {map[string]string{
			"proc/self/cgroup":                             "12:pids:/x\n4:memory:/x\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":   "9223372036854771712\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "268435456\n",
		}, 256 << 20},
		"version 1, path of another view": {map[string]string{
			"proc/self/cgroup":                           "4:cpu,memory:/docker/abc\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "777777\n",
		}, 777777},
		"version 1, none": {map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
	} {
		root := fstest.MapFS{}
		for file, text := range tt.files {
			root[file] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := groupLimit(root); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// TestNewMemory: the budget fits the process's limit, and two of the largest messages fit the budget.
func TestNewMemory(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tt := range []struct {
		inFlight, bodies, message config.Size
		limit                     int64
		budget, kept              int64
	}{
		{512 * mib, 128 * mib, 50 * mib, 0, 512 * mib, 128 * mib},
		{512 * mib, 128 * mib, 50 * mib, 460 * mib, 230 * mib, 115 * mib},
		{512 * mib, 128 * mib, 50 * mib, 128 * mib, 100 * mib, 50 * mib},
		{512 * mib, 0, 50 * mib, 2048 * mib, 512 * mib, -1},
	} {
		cfg := config.Default()
		cfg.Memory = config.Memory{InFlight: tt.inFlight, Bodies: tt.bodies}
		cfg.Limits.MessageSize = tt.message
		budget, kept := newMemory(cfg, tt.limit, slog.New(slog.DiscardHandler))
		if budget.Limit() != tt.budget || kept != tt.kept {
			t.Errorf("%+v: %d and %d", tt, budget.Limit(), kept)
		}
	}
}
