package inbound

import (
	"context"
	"errors"
	"net/netip"

	"github.com/godwit-mta/godwit/internal/dns"
)

// Resolver looks names up. An answer that there is nothing is no error: it is an empty list, or false. An error says that it
// could not be found out now.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	NetIP(ctx context.Context, network, name string) ([]netip.Addr, error) // network is "ip4" or "ip6"
	MX(ctx context.Context, name string) ([]string, error)
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
	Exists(ctx context.Context, name string) (bool, error)
	// TakesNoMail tells whether a domain has a null MX (RFC 7505).
	TakesNoMail(ctx context.Context, domain string) (bool, error)
}

// DNS makes the server's resolver one for checks.
func DNS(r *dns.Resolver) Resolver { return resolver{r} }

type resolver struct{ r *dns.Resolver }

// found drops errors that are answers.
func found[T any](list []T, err error) ([]T, error) {
	var e *dns.Error
	if errors.As(err, &e) && !e.Temporary() {
		return nil, nil
	}
	return list, err
}

func (r resolver) TXT(ctx context.Context, name string) ([]string, error) {
	t, err := r.r.LookupTXT(ctx, name)
	return found(t.Records, err)
}

func (r resolver) NetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	return found(r.r.LookupFamily(ctx, name, network == "ip6"))
}

func (r resolver) MX(ctx context.Context, name string) ([]string, error) {
	return found(r.r.LookupMXRecords(ctx, name))
}

func (r resolver) PTR(ctx context.Context, addr netip.Addr) ([]string, error) {
	return found(r.r.LookupPTR(ctx, addr))
}

func (r resolver) Exists(ctx context.Context, name string) (bool, error) {
	_, err := r.r.LookupMXRecords(ctx, name)
	var e *dns.Error
	if errors.As(err, &e) && !e.Temporary() {
		return e.Kind != dns.NXDomain && e.Kind != dns.Malformed, nil
	}
	return err == nil, err
}

func (r resolver) TakesNoMail(ctx context.Context, domain string) (bool, error) {
	_, err := r.r.LookupMXRecords(ctx, domain)
	var e *dns.Error
	if errors.As(err, &e) && !e.Temporary() {
		return e.Kind == dns.NullMX, nil
	}
	return false, err
}
