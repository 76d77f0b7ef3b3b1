package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/api"
)

// usage is what a process holds: invariant G-1.
type usage struct {
	goroutines  int
	descriptors int
	heap        int64 // octets of live objects, after a collection, but for those that the index holds within bounds of its own
	resident    int64 // octets
}

// Bounds of G-1: what may be left when a scenario is over.
const (
	usageLimit     = 60 * time.Second // to come back to where it was
	moreGoroutines = 5
	moreFiles      = 5
	moreHeapShare  = 0.10
	indexLimit     = 72 << 20 // 32 MiB of cache, and tables of 8 MiB in the making, of which Pebble may keep some
	moreHeap       = 8 << 20  // pools that stay warm
)

var (
	goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)`)
	heapAlloc      = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)`)
)

// use asks a server that serves profiles what it holds.
func (p *process) use(ctx context.Context) (*usage, error) {
	u := new(usage)
	for _, q := range []struct {
		path string
		form *regexp.Regexp
		to   func(int64)
	}{
		// Twice, since a pool gives up what it holds at the second collection.
		{"heap?gc=1&debug=1", heapAlloc, func(int64) {}},
		{"heap?gc=1&debug=1", heapAlloc, func(n int64) { u.heap = n }},
		{"goroutine?debug=1", goroutineTotal, func(n int64) { u.goroutines = int(n) }},
	} {
		text, err := get(ctx, "http://"+p.profiles+"/debug/pprof/"+q.path)
		if err != nil {
			return nil, fmt.Errorf("ask for profile: %w", err)
		}
		m := q.form.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("no number in profile %s", q.path)
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			return nil, err
		}
		q.to(n)
	}
	// By way of its own root, since its disk may be mounted for it alone.
	client := api.NewSocketClient(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "root", p.data, "admin.sock"))
	defer client.Close()
	spool, err := client.SpoolStats(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the memory of the index: %w", err)
	}
	if spool.MemoryIndex > indexLimit {
		return nil, fmt.Errorf("the index holds %.1f MiB", mib(spool.MemoryIndex))
	}
	u.heap -= spool.MemoryIndex
	files, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "fd"))
	if err != nil {
		return nil, fmt.Errorf("count descriptors: %w", err)
	}
	u.descriptors = len(files)
	u.resident, err = p.memory("VmRSS")
	return u, err
}

// memory returns a line of /proc/PID/status in octets: VmRSS, or VmHWM for the most so far.
func (p *process) memory(line string) (int64, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no " + line + " in /proc/PID/status")
}

func get(ctx context.Context, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	r.Close = true // the connection must not count as the server's
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return string(text), err
}

// back reports that what is used now is no more than before, within the bounds.
func (u *usage) back(before *usage) bool {
	return u.goroutines <= before.goroutines+moreGoroutines && u.descriptors <= before.descriptors+moreFiles &&
		float64(u.heap) <= float64(before.heap)*(1+moreHeapShare)+moreHeap
}

func (u *usage) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %.1f MiB of heap, %.1f MiB resident", u.goroutines, u.descriptors,
		mib(u.heap), mib(u.resident))
}

func mib(n int64) float64 { return math.Round(float64(n)/(1<<20)*10) / 10 }

// afterWork lets a server that is new work for a moment and come to rest, and returns what it uses then: with the pools and
// caches that it keeps. The internet is as it was afterwards.
func (s *stage) afterWork(ctx context.Context, p *process) (*usage, error) {
	if err := s.world.setDown(false); err != nil {
		return nil, err
	}
	s.door.set(p.address)
	pause(ctx, 3*time.Second)
	s.door.set("")
	if err := errors.Join(s.drain(ctx, p), s.world.setDown(s.o.down)); err != nil {
		return nil, err
	}
	s.door.replies.take()
	return p.use(ctx)
}

// compareUsage waits until a server without work is back where it was: G-1.
func (s *stage) compareUsage(ctx context.Context, p *process, before *usage) error {
	now, err := awaitUsage(ctx, p, before)
	if err != nil {
		return err
	}
	s.v.judgeUsage(before, now)
	return nil
}

// awaitUsage asks until the server is back where it was or the time is up.
func awaitUsage(ctx context.Context, p *process, before *usage) (*usage, error) {
	for deadline := time.Now().Add(usageLimit); ; {
		now, err := p.use(ctx)
		if err != nil || now.back(before) || time.Now().After(deadline) {
			return now, err
		}
		if !pause(ctx, 500*time.Millisecond) {
			return nil, context.Cause(ctx)
		}
	}
}

// judgeUsage is G-1.
func (v *Verdict) judgeUsage(before, now *usage) {
	v.checks(G1)
	v.note("before: %s; after: %s", before, now)
	if !now.back(before) {
		v.breach(G1, "%s after the fault and its load, and %s before", now, before)
	}
}
