package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
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
given, and prints its counters as JSON when it ends.

--rule POINT[:PATTERN]=ACTION is asked at points of the dialog; the first that matches acts:
  points   banner ehlo helo mail rcpt data body final rset noop quit
  pattern  recipient at rcpt, sender at the other points of a transaction; * stands for anything
  action   a reply ("550 5.1.1 no such user"), drop (FIN), reset (RST), or stall
A --script FILE in JSON can say more: delays, cut replies, shares, counts (see package smtptest).`,
		Example: `  godwit sink --listen 127.0.0.1:2526
  godwit sink --listen 127.0.0.1:2526 --greylist 30s --rule "rcpt:nobody@*=550 5.1.1 no such user"
  godwit sink --listen 127.0.0.1:2526 --messages 1000 --rule final=drop --maildir ./mail`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.sink(c.Context(), &f) },
	}
	fl := c.Flags()
	fl.StringSliceVar(&f.listen, "listen", []string{"127.0.0.1:2526"}, "address to listen on; may be repeated")
	fl.StringVar(&f.file, "script", "", "JSON file that says how to behave")
	fl.StringArrayVar(&f.rules, "rule", nil, "how to behave at one point; may be repeated")
	fl.StringVar(&f.maildir, "maildir", "", "folder to keep messages in")
	fl.IntVar(&f.messages, "messages", 0, "end after this many messages; 0: run until stopped")
	fl.DurationVar(&f.every, "report", 0, "print the counters this often")
	fl.DurationVar(&f.delay, "delay", 0, "wait before the final reply to each message")
	fl.DurationVar(&f.grey, "greylist", 0, "refuse each new sender and recipient until this time has passed")
	fl.BoolVar(&f.script.LMTP, "lmtp", false, "speak LMTP")
	fl.StringSliceVar(&f.script.Without, "without", nil, "extension not to offer, such as PIPELINING; may be repeated")
	fl.Int64Var(&f.script.Size, "size", 0, "largest message in octets")
	fl.IntVar(&f.script.Recipients, "max-recipients", 0, "recipients of a transaction before 452")
	fl.IntVar(&f.script.SessionMessages, "max-session-messages", 0, "messages of a session before 421")
	fl.IntVar(&f.script.Sessions, "max-sessions", 0, "open sessions before 421")
	fl.Float64Var(&f.script.Rate, "rate", 0, "messages accepted in a second")
	return c
}

func (f *sinkFlags) build() (smtptest.Script, error) {
	s := f.script
	if f.file != "" {
		p, err := os.ReadFile(f.file)
		if err != nil {
			return s, fmt.Errorf("read script: %w", err)
		}
		s = smtptest.Script{}
		if err := json.Unmarshal(p, &s); err != nil {
			return s, fmt.Errorf("read script %s: %w", f.file, err)
		}
	}
	if f.grey > 0 {
		s.Greylist = smtptest.Duration(f.grey)
	}
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
	return s, s.Validate()
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
		return &usageError{err}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen atomic.Int64
	sink, err := smtptest.NewSink(smtptest.SinkOptions{
		Script:  script,
		Maildir: f.maildir,
		OnMessage: func(r *smtptest.Received) {
			if n := seen.Add(1); f.messages > 0 && n >= int64(f.messages) {
				cancel()
			}
		},
	})
	if err != nil {
		return err
	}
	var listeners []net.Listener
	for _, address := range f.listen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			for _, open := range listeners {
				open.Close()
			}
			return fmt.Errorf("listen: %w", err)
		}
		listeners = append(listeners, l)
		fmt.Fprintf(a.err, "sink listens on %s\n", l.Addr())
	}
	done := make(chan error, 1)
	go func() { done <- sink.Run(ctx, listeners...) }()
	err = a.watchSink(sink, f.every, done)
	c := sink.Counters()
	if perr := json.NewEncoder(a.out).Encode(c); perr != nil {
		return fmt.Errorf("write counters: %w", perr)
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// watchSink prints the counters now and then until the sink has ended.
func (a *app) watchSink(sink *smtptest.Sink, every time.Duration, done <-chan error) error {
	if every <= 0 {
		return <-done
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-t.C:
			if err := json.NewEncoder(a.out).Encode(sink.Counters()); err != nil {
				return fmt.Errorf("write counters: %w", err)
			}
		}
	}
}
