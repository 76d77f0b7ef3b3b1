package main

import (
	"context"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/godwit-mta/godwit/internal/dns/dnstest"
)

type nameserverKey struct{}

// nameserver is the DNS of a script: "nameserver VAR" begins it and puts its address into VAR, "nameserver zone FILE..."
// gives it the zones of these files.
type nameserver struct{ server *dnstest.Server }

func cmdNameserver(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1)
	n, ok := ts.Value(nameserverKey{}).(*nameserver)
	if !ok {
		ts.Fatalf("no place for a name server")
	}
	if args[0] == "zone" {
		var text string
		for _, file := range args[1:] {
			text += ts.ReadFile(file) + "\n"
		}
		ts.Check(n.server.Set(text))
		return
	}
	var err error
	n.server, err = dnstest.New("")
	ts.Check(err)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.server.Run(ctx) })
	ts.Defer(func() { stop(); wg.Wait() })
	ts.Setenv(args[0], n.server.Addr().String())
}
