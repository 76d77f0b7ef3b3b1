package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/godwit-mta/godwit/event"
)

// errNoFamily: the source is bound to addresses of the other family only.
var errNoFamily = errors.New("the source has no local address of this family")

// ForbiddenError says that the address policy forbids an address.
type ForbiddenError struct {
	Addr   netip.Addr
	Reason string // kind of address
}

// Error returns address and reason.
func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("%s is not allowed: %s", e.Addr, e.Reason)
}

// DialError says why one target was not reached.
type DialError struct {
	Target Target
	Err    error
}

// Error returns what happened in an operator's words.
func (e *DialError) Error() string {
	switch e.Reason() {
	case event.ConnectionRefused:
		return "connection refused by " + e.Target.String()
	case event.ConnectionTimeout:
		return "connection to " + e.Target.String() + " timed out"
	case event.NetworkUnreachable:
		return "no network path to " + e.Target.String()
	}
	var op *net.OpError
	if errors.As(e.Err, &op) { // its own text repeats the address
		return fmt.Sprintf("connection to %s failed: %v", e.Target, op.Err)
	}
	return fmt.Sprintf("connection to %s failed: %v", e.Target, e.Err)
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// Reason sorts the failure into the closed list.
func (e *DialError) Reason() event.Reason {
	var forbidden *ForbiddenError
	switch err := e.Err; {
	case errors.As(err, &forbidden):
		return event.NoUsableAddress
	case errors.Is(err, context.Canceled):
		return event.Interrupted
	case errors.Is(err, syscall.ECONNREFUSED):
		return event.ConnectionRefused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETDOWN),
		errors.Is(err, syscall.EHOSTDOWN), errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, errNoFamily):
		return event.NetworkUnreachable
	case errors.Is(err, syscall.ECONNRESET):
		return event.ConnectionLost
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, syscall.ETIMEDOUT):
		return event.ConnectionTimeout
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), // descriptors
		errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM), // memory
		errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EAGAIN):
		return event.LocalError
	}
	var timeout net.Error
	if errors.As(e.Err, &timeout) && timeout.Timeout() {
		return event.ConnectionTimeout
	}
	return event.ConnectionFailed
}

// joinDials returns the failures in the order of the targets, however the race ended.
func joinDials(failed []*DialError, first Target) error {
	if len(failed) == 1 {
		return failed[0]
	}
	if failed[0].Target != first {
		failed[0], failed[1] = failed[1], failed[0]
	}
	return errors.Join(failed[0], failed[1])
}
