package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// bench is what all jobs share.
type bench struct {
	binary string
	dir    string // where data directories are made
	quick  bool
	out    io.Writer
	log    io.Writer
}

// pick returns the size of something for a long run or a quick one.
func pick[T any](b *bench, full, quick T) T {
	if b.quick {
		return quick
	}
	return full
}

func (b *bench) note(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

// job is something that can be asked for by name.
type job struct {
	name string
	run  func(context.Context, *bench) (*row, error) // the row is nil if there is nothing to draw
	row  bool                                        // it is one of the rows
}

var jobs = []job{
	{"depth", depthRow, true}, {"size", sizeRow, true}, {"sessions", sessionsRow, true}, {"domains", domainsRow, true},
	{"recipients", recipientsRow, true},
	{"latency", latencyJob, false}, {"deferred", deferredJob, false}, {"deep", deepJob, false}, {"idle", idleJob, false},
	{"auth", authJob, false}, {"idle-tls", idleTLSJob, false},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "growth:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	b := &bench{out: os.Stdout, log: os.Stderr}
	flags := flag.NewFlagSet("growth", flag.ContinueOnError)
	flags.StringVar(&b.binary, "binary", "bin/godwit", "program to measure")
	flags.StringVar(&b.dir, "dir", os.TempDir(), "directory on the disk to measure; some jobs need 20 GB there")
	flags.BoolVar(&b.quick, "quick", false, "fewer messages and fewer steps")
	figure := flags.String("svg", "", "write the figure of the rows to this file")
	names := flags.String("jobs", "", "what to measure, separated by commas: "+strings.Join(jobNames(nil), ", ")+
		"; default: the rows "+strings.Join(jobNames(isRow), ", "))
	if err := flags.Parse(args); err != nil {
		return err
	}
	asked := jobNames(isRow)
	if *names != "" {
		asked = strings.Split(*names, ",")
	}
	for _, name := range asked {
		if !slices.Contains(jobNames(nil), name) {
			return fmt.Errorf("no job %q: there are %s", name, strings.Join(jobNames(nil), ", "))
		}
	}
	var rows []*row
	for _, j := range jobs {
		if !slices.Contains(asked, j.name) {
			continue
		}
		b.note("%s", j.name)
		r, err := j.run(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", j.name, err)
		}
		if r != nil {
			fmt.Fprint(b.out, r.markdown(), "\n")
			rows = append(rows, r)
		}
	}
	if *figure == "" || len(rows) == 0 {
		return nil
	}
	if err := os.WriteFile(*figure, drawing(rows), 0o644); err != nil {
		return fmt.Errorf("write figure: %w", err)
	}
	for _, r := range rows {
		if len(r.steep()) > 0 {
			return errors.New("the cost of some row grows faster than its input: see the marks above")
		}
	}
	return nil
}

func isRow(j job) bool { return j.row }

func jobNames(which func(job) bool) (names []string) {
	for _, j := range jobs {
		if which == nil || which(j) {
			names = append(names, j.name)
		}
	}
	return names
}
