package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// memoryGroup is a control group whose processes may use so much memory, page cache included.
type memoryGroup struct {
	dir string
	two bool // cgroup v2
}

// newMemoryGroup makes a group, or says why that cannot be.
func newMemoryGroup(limit int) (*memoryGroup, error) {
	if os.Getuid() != 0 {
		return nil, Skip("it makes a memory control group, and that needs root")
	}
	name := "godwit-crash-" + strconv.Itoa(os.Getpid())
	var errs []error
	for _, g := range []*memoryGroup{
		{dir: filepath.Join("/sys/fs/cgroup/memory", name)},
		{dir: filepath.Join("/sys/fs/cgroup", name), two: true},
	} {
		file := "memory.limit_in_bytes"
		if g.two {
			file = "memory.max"
		}
		if _, err := os.Stat(filepath.Dir(g.dir)); err != nil {
			continue
		}
		err := os.Mkdir(g.dir, 0o755)
		if err == nil {
			err = os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.Itoa(limit<<20)), 0o600)
			if err == nil {
				return g, nil
			}
			err = errors.Join(err, os.Remove(g.dir))
		}
		errs = append(errs, err)
	}
	return nil, Skip("no memory control group can be made here: %v", errors.Join(errs...))
}

// prefix makes a command run in the group; the process that is started becomes that command.
func (g *memoryGroup) prefix() []string {
	return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs")}
}

// events returns how often the group was at its limit and how often something was killed for it.
func (g *memoryGroup) events() (limited, killed int) {
	number := func(file, key string) int {
		text, err := os.ReadFile(filepath.Join(g.dir, file))
		if err != nil {
			return 0
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, key); ok {
				if n, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil {
					return n
				}
			}
		}
		return 0
	}
	if g.two {
		return number("memory.events", "max "), number("memory.events", "oom_kill ")
	}
	return number("memory.failcnt", ""), number("memory.oom_control", "oom_kill ")
}

// remove removes the group once its processes are gone.
func (g *memoryGroup) remove() error {
	var err error
	for range 50 {
		if err = os.Remove(g.dir); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("remove control group: %w", err)
}
