package outbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	timeLayout = "20060102T150405.000Z" // in names
	plainEnd   = ".jsonl"
	gzipEnd    = ".jsonl.gz"
	zstdEnd    = ".jsonl.zst"
	unfinished = ".tmp"
)

// archived is a closed file.
type archived struct {
	name       string
	from, to   time.Time // of its events
	compressed Compression
}

// freeName returns a name for a file with events from from to to that no file has.
func freeName(dir string, from, to time.Time) string {
	for {
		name := from.UTC().Format(timeLayout) + "-" + to.UTC().Format(timeLayout)
		taken := false
		for _, end := range []string{plainEnd, gzipEnd, zstdEnd} {
			_, err := os.Lstat(filepath.Join(dir, name+end))
			taken = taken || err == nil
		}
		if !taken {
			return name + plainEnd
		}
		to = to.Add(time.Millisecond)
	}
}

// parseName reads the name of a closed file.
func parseName(name string) (a archived, ok bool) {
	a.name = name
	var stem string
	switch {
	case strings.HasSuffix(name, gzipEnd):
		stem, a.compressed = strings.TrimSuffix(name, gzipEnd), Gzip
	case strings.HasSuffix(name, zstdEnd):
		stem, a.compressed = strings.TrimSuffix(name, zstdEnd), Zstd
	case strings.HasSuffix(name, plainEnd):
		stem, a.compressed = strings.TrimSuffix(name, plainEnd), None
	}
	from, to, _ := strings.Cut(stem, "-")
	var err, err2 error
	a.from, err = time.Parse(timeLayout, from)
	a.to, err2 = time.Parse(timeLayout, to)
	return a, err == nil && err2 == nil
}

// closedFiles lists the closed files of a directory, oldest first. A file that is being compressed is listed once.
func closedFiles(dir string) ([]archived, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing the event log: %w", err)
	}
	var files []archived
	for _, e := range entries {
		a, ok := parseName(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		// A crash between the two steps of compressing leaves both; the plain one is complete, and is compressed anew.
		if n := len(files); n > 0 && files[n-1].from.Equal(a.from) && files[n-1].to.Equal(a.to) {
			if a.compressed == None {
				files[n-1] = a
			}
			continue
		}
		files = append(files, a)
	}
	return files, nil
}

// archive compresses and deletes closed files, one at a time.
type archive struct {
	dir     string
	logger  *slog.Logger
	metrics *metrics
	limits  *atomic.Pointer[Limits]
	wake    chan struct{}
}

func (a *archive) nudge() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run works until ctx ends. What it leaves half-done is done after the next start.
func (a *archive) run(ctx context.Context) {
	hourly := time.NewTicker(time.Hour) // files also grow old without new ones coming
	defer hourly.Stop()
	for {
		if err := a.tidy(ctx, time.Now()); err != nil && ctx.Err() == nil {
			a.metrics.errors.Inc()
			a.logger.Error("tidying up the event log", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-hourly.C:
		}
	}
}

// tidy deletes what is too old or too much, then compresses the rest.
func (a *archive) tidy(ctx context.Context, now time.Time) error {
	limits := a.limits.Load()
	files, err := closedFiles(a.dir)
	if err != nil {
		return err
	}
	tooMany := max(len(files)-limits.Keep, 0)
	keep := files[:0]
	var errs []error
	for i, f := range files {
		if i >= tooMany && now.Sub(f.to) < limits.KeepFor {
			keep = append(keep, f)
			continue
		}
		a.logger.Info("deleting old events", "file", f.name)
		errs = append(errs, os.Remove(filepath.Join(a.dir, f.name)))
	}
	leftovers, err := filepath.Glob(filepath.Join(a.dir, "*"+plainEnd+".*"+unfinished))
	errs = append(errs, err)
	for _, name := range leftovers {
		errs = append(errs, os.Remove(name))
	}
	for _, f := range keep {
		if f.compressed == None && limits.Compress != None {
			if err := a.compress(ctx, f, limits.Compress); err != nil {
				return errors.Join(append(errs, err)...)
			}
		}
	}
	return errors.Join(errs...)
}

// compress replaces a closed file by a compressed one. A crash leaves the plain file, or both, whole.
func (a *archive) compress(ctx context.Context, f archived, how Compression) (err error) {
	plain := filepath.Join(a.dir, f.name)
	target := strings.TrimSuffix(plain, plainEnd) + map[Compression]string{Gzip: gzipEnd, Zstd: zstdEnd}[how]
	in, err := os.Open(plain)
	if err != nil {
		return fmt.Errorf("compressing events: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(target+unfinished, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, filePerm)
	if err != nil {
		return fmt.Errorf("compressing events: %w", err)
	}
	if err := errors.Join(squeeze(ctx, out, in, how), out.Sync(), out.Close()); err != nil {
		return errors.Join(fmt.Errorf("compressing %s: %w", f.name, err), os.Remove(target+unfinished))
	}
	if err := os.Rename(target+unfinished, target); err != nil {
		return fmt.Errorf("compressing events: %w", err)
	}
	if err := syncDir(a.dir); err != nil {
		return err
	}
	if err := os.Remove(plain); err != nil {
		return fmt.Errorf("compressing events: %w", err)
	}
	return nil
}

// squeeze copies in to out, compressed, until ctx ends. It uses one processor and favours speed: this work stands
// beside mail.
func squeeze(ctx context.Context, out io.Writer, in io.Reader, how Compression) error {
	var (
		w   io.WriteCloser
		err error
	)
	if how == Zstd {
		w, err = zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	} else {
		w, err = gzip.NewWriterLevel(out, gzip.BestSpeed)
	}
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(w, contextReader{ctx, in}, make([]byte, 1<<18))
	return errors.Join(err, w.Close())
}

// contextReader ends a long copy when the server stops.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
