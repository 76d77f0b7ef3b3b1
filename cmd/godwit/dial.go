package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// dialTimeout bounds a connection attempt of the commands that speak SMTP themselves.
const dialTimeout = 30 * time.Second

// dial connects to a server and, unless secure is nil, brings TLS over the connection and logs in.
func dial(ctx context.Context, address string, secure *smtptest.SecureOptions, hello string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil || secure == nil {
		return nc, err
	}
	o := *secure
	o.Hello = hello
	return smtptest.Secure(ctx, nc, o)
}

// checkAddress complains of what cannot be connected to.
func checkAddress(flag, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return usagef("%s %q is not HOST:PORT, such as 127.0.0.1:2525 or mail.example.com:25", flag, address)
	}
	if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 {
		return usagef("%s %q is not HOST:PORT with a port from 1 to 65535", flag, address)
	}
	return nil
}

// explainDial says what a failed connection means and what to try. err may be several of the same kind.
func explainDial(ctx context.Context, flag, address string, err error) error {
	var name *net.DNSError
	var op *net.OpError
	var unknown x509.UnknownAuthorityError
	switch {
	case ctx.Err() != nil:
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no server listens on %s (connection refused): start one with \"godwit serve\" or "+
			"\"godwit sink\", or name another with %s HOST:PORT", address, flag)
	case errors.As(err, &name) && name.IsNotFound:
		return fmt.Errorf("no host has the name %q: is it spelled right? %s HOST:PORT names another", name.Name, flag)
	case errors.As(err, &unknown):
		return fmt.Errorf("nobody that this machine trusts vouches for the certificate of %s: name whom to trust, or the "+
			"certificate itself, with --ca FILE", address)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s does not answer: is the address right, and does no firewall drop connections to it?", address)
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("connect to %s: %w", address, op.Err)
	}
	return fmt.Errorf("%s takes no session: %w", address, err)
}
