// Command godwit is an outbound mail server: it takes mail from applications, keeps it safely, delivers it to the
// internet, and explains what happened to every message.
//
//	godwit demo                       see it work, in a minute, with nothing to set up
//	godwit serve --config FILE        run it
//	godwit queue list                 look at what waits, and why
//
// One file here is one subcommand; all of them are declared in root.go.
//
// Certificates with a negative serial number, as old appliances make them for themselves, can be read (Go 1.23 and later
// refuse to): else mail to such hosts would go in the clear. Where a host must prove who it is they are refused, see
// package delivery. No other setting of crypto/tls or crypto/x509 is loosened here: all that opportunistic TLS needs beyond
// the defaults is in its own tls.Config.
//
//go:debug x509negativeserial=1
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Who asks twice does not want to wait: the second signal ends the program as if nobody had listened.
	context.AfterFunc(ctx, stop)
	a := &app{self: os.Args[0], in: os.Stdin, out: os.Stdout, err: os.Stderr}
	os.Exit(a.run(ctx, os.Args[1:]))
}
