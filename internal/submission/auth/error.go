package auth

import (
	"errors"
	"fmt"
)

// What callers branch on.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrChanged  = errors.New("was changed by somebody else at the same time")
	ErrInUse    = errors.New("is in use")
)

// InputError says which field of a request cannot be, and what to write instead.
type InputError struct {
	Field string // as in package api
	Text  string
}

// Error returns the text.
func (e *InputError) Error() string { return e.Text }

func invalid(field, format string, args ...any) error {
	return &InputError{Field: field, Text: fmt.Sprintf(format, args...)}
}

// Errors of [Identity.Valid]. They say what an operator wants to know; a peer is told nothing of it.
var (
	ErrRevoked        = errors.New("the credential was revoked or its secret replaced")
	ErrDisabled       = errors.New("the credential is disabled")
	ErrExpired        = errors.New("the credential has expired")
	ErrTenantDisabled = errors.New("the tenant is disabled")
)

// SenderError says why an identity may not send as somebody.
type SenderError struct {
	Reason SenderReason
	Domain string // in A-labels; empty for the null path or a domain that is none
}

// SenderReason is why a sender is refused. The set is closed.
type SenderReason string

// The reasons.
const (
	SenderNull       SenderReason = "null_sender"    // an empty reverse-path, which the credential may not use
	SenderMalformed  SenderReason = "malformed"      // no domain, an address literal, or one that IDNA refuses
	SenderForeign    SenderReason = "not_its_domain" // the tenant has not proven the domain
	SenderRestricted SenderReason = "restricted"     // it is the tenant's, but not among the credential's senders
)

// Error says the reason in words.
func (e *SenderError) Error() string {
	switch e.Reason {
	case SenderNull:
		return "this credential may not send with an empty sender"
	case SenderForeign:
		return fmt.Sprintf("domain %s is not this tenant's: prove it with \"godwit domain add\" and \"godwit domain verify\"", e.Domain)
	case SenderRestricted:
		return fmt.Sprintf("this credential may not send as this address of %s", e.Domain)
	}
	return "the sender's domain is no domain name"
}
