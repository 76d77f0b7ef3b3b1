package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// sinkFlags are the flags of "sink"; those that have a place in a script are laid over the script's file.
type sinkFlags struct {
	listen   []string
	file     string
	maildir  string
	messages int
	every    time.Duration
	rules    []string
	script   smtptest.Script
	grey     time.Duration
	delay    time.Duration
}

func (a *app) sinkCommand() *cobra.Command {
	var f sinkFlags
	c := &cobra.Command{
		Use:   "sink",
		Short: "Receive mail and misbehave as told: a server to test against",
		Long: `Receive mail and misbehave as told: a server to test against. It keeps nothing unless --maildir is
given. It prints its counters, one line of JSON, when it ends and whenever it gets SIGUSR1.
For messages of "godwit load" on the same machine these tell how old they were when they came (age_ms).

--rule POINT[:PATTERN]=ACTION is asked at points of the dialog; the first that matches acts:
  points   banner ehlo helo mail rcpt data body final rset noop quit
  pattern  recipient at rcpt, sender at the other points of a transaction; * stands for anything
  action   a reply ("550 5.1.1 no such user"), drop (ends the connection), reset (breaks it), or stall
A --script FILE in JSON can say more: delays, cut replies, shares, counts (see package smtptest). Flags are
laid over it.`,
		Example: `  godwit sink --listen 127.0.0.1:2526
  godwit sink --listen 127.0.0.1:2526 --greylist 30s --rule "rcpt:nobody@*=550 5.1.1 no such user"
  godwit sink --listen 127.0.0.1:2526 --messages 1000 --rule final=drop --maildir ./mail`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.sink(c.Context(), &f) },
	}
	fl := c.Flags()
	fl.StringSliceVar(&f.listen, "listen", []string{"127.0.0.1:2526"}, "listen on `ADDRESS`; may be repeated")
	fl.StringVar(&f.file, "script", "", "JSON `FILE` that says how to behave")
	fl.StringArrayVar(&f.rules, "rule", nil, "`RULE` for one point of the dialog; may be repeated")
	fl.StringVar(&f.maildir, "maildir", "", "keep messages in `DIR`")
	fl.IntVar(&f.messages, "messages", 0, "end after `N` messages, accepted or refused; 0: run until stopped")
	fl.DurationVar(&f.every, "report", 0, "print the counters each time `DURATION` has passed, such as 10s")
	fl.DurationVar(&f.delay, "delay", 0, "wait `DURATION` before the final reply to each message")
	fl.DurationVar(&f.grey, "greylist", 0, "refuse each new sender and recipient until `DURATION` has passed")
	fl.BoolVar(&f.script.LMTP, "lmtp", false, "speak LMTP")
	fl.StringSliceVar(&f.script.Without, "without", nil, "do not offer `EXTENSION`, such as PIPELINING; may be repeated")
	fl.Int64Var(&f.script.Size, "size", 0, "refuse messages of more than `OCTETS`")
	fl.IntVar(&f.script.Recipients, "max-recipients", 0, "answer 452 beyond `N` recipients of a transaction")
	fl.IntVar(&f.script.SessionMessages, "max-session-messages", 0, "answer 421 beyond `N` messages of a session")
	fl.IntVar(&f.script.Sessions, "max-sessions", 0, "answer 421 beyond `N` open sessions")
	fl.Float64Var(&f.script.Rate, "rate", 0, "accept `N` messages in a second, refuse the others")
	_ = c.MarkFlagDirname("maildir")         // the flag exists
	_ = c.MarkFlagFilename("script", "json") // the flag exists
	return c
}

// build makes one script of the file and the flags.
func (f *sinkFlags) build() (smtptest.Script, error) {
	var s smtptest.Script
	if f.file != "" {
		p, err := os.ReadFile(f.file)
		if err != nil {
			return s, fmt.Errorf("read script: %w", err)
		}
		d := json.NewDecoder(bytes.NewReader(p))
		d.DisallowUnknownFields()
		if err := d.Decode(&s); err != nil {
			return s, fmt.Errorf("read script %s: %w", f.file, err)
		}
		if err := s.Validate(); err != nil {
			return s, fmt.Errorf("read script %s: %w", f.file, err)
		}
	}
	lay(&s.LMTP, f.script.LMTP)
	lay(&s.Size, f.script.Size)
	lay(&s.Recipients, f.script.Recipients)
	lay(&s.SessionMessages, f.script.SessionMessages)
	lay(&s.Sessions, f.script.Sessions)
	lay(&s.Rate, f.script.Rate)
	lay(&s.Greylist, smtptest.Duration(f.grey))
	s.Without = append(s.Without, f.script.Without...)
	for _, text := range f.rules {
		r, err := parseRule(text)
		if err != nil {
			return s, err
		}
		s.Rules = append(s.Rules, r)
	}
	if f.delay > 0 {
		s.Rules = append(s.Rules, smtptest.Rule{At: smtptest.AtFinal, Delay: smtptest.Duration(f.delay)})
	}
	if err := s.Validate(); err != nil {
		return s, &usageError{err}
	}
	return s, nil
}

// lay puts a flag that was given over what the script has.
func lay[T comparable](under *T, flag T) {
	var none T
	if flag != none {
		*under = flag
	}
}

func parseRule(text string) (smtptest.Rule, error) {
	where, action, ok := strings.Cut(text, "=")
	if !ok {
		return smtptest.Rule{}, usagef("--rule %q is not POINT[:PATTERN]=ACTION", text)
	}
	point, pattern, _ := strings.Cut(where, ":")
	r := smtptest.Rule{At: smtptest.Point(point), Match: pattern}
	switch action {
	case "drop":
		r.Drop = smtptest.DropFIN
	case "reset":
		r.Drop = smtptest.DropRST
	case "stall":
		r.Stall = true
	default:
		r.Reply = action
	}
	return r, nil
}

func (a *app) sink(ctx context.Context, f *sinkFlags) error {
	script, err := f.build()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen atomic.Int64
	sink, err := smtptest.NewSink(smtptest.SinkOptions{
		Script:  script,
		Maildir: f.maildir,
		OnMessage: func(*smtptest.Received) {
			if n := seen.Add(1); f.messages > 0 && n >= int64(f.messages) {
				cancel()
			}
		},
	})
	if err != nil {
		return fmt.Errorf("make sink: %w", err)
	}
	listeners, err := listenAll(f.listen)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		fmt.Fprintf(a.err, "sink listens on %s\n", l.Addr())
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, countersSignals()...)
	defer signal.Stop(asked)
	done := make(chan error, 1)
	go func() { done <- sink.Run(ctx, listeners...) }()
	err = a.watchSink(sink, f.every, asked, done)
	return errors.Join(err, a.printCounters(sink))
}

// listenAll opens all addresses or none.
func listenAll(addresses []string) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			for _, open := range listeners {
				open.Close()
			}
			return nil, fmt.Errorf("listen: %w", err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// watchSink prints the counters now and then, and when asked, until the sink has ended.
func (a *app) watchSink(sink *smtptest.Sink, every time.Duration, asked <-chan os.Signal, done <-chan error) error {
	var tick <-chan time.Time
	if every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case err := <-done:
			return err
		case <-tick:
		case <-asked:
		}
		if err := a.printCounters(sink); err != nil {
			fmt.Fprintf(a.err, "godwit: %v\n", err) // the sink matters more to its clients
		}
	}
}

// printCounters writes the counters as one line of JSON.
func (a *app) printCounters(sink *smtptest.Sink) error {
	if err := json.NewEncoder(a.out).Encode(sink.Counters()); err != nil {
		return fmt.Errorf("write counters: %w", err)
	}
	return nil
}
