package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// one measures one point: a fresh server, warmed, and one run.
func one(ctx context.Context, b *bench, x float64, fill func(string) error, o smtptest.LoadOptions, recipients int) (
	p point, err error) {
	r, err := newRig(ctx, b, fill)
	if err != nil {
		return p, err
	}
	defer r.end(&err)
	if err := r.warm(ctx); err != nil {
		return p, err
	}
	m, err := r.relay(ctx, o, recipients)
	if err != nil {
		return p, err
	}
	b.note("  %v: %.0f/s, %.0f µs a message, %d MiB", x, m.rate(), m.perMessage(), m.rss>>20)
	return point{x: x, measured: m, startup: r.startup}, nil
}

func sizeRow(ctx context.Context, b *bench) (*row, error) {
	r := &row{title: "Size of messages", input: "octets", per: linear}
	for _, size := range []int{1 << 10, 10 << 10, 100 << 10, 1 << 20, 10 << 20} {
		n := min(max(pick(b, 2<<30, 256<<20)/size, 50), pick(b, 50_000, 10_000))
		p, err := one(ctx, b, float64(size), nil, smtptest.LoadOptions{
			Messages: n, Size: size, Sessions: min(50, max(1, 200<<20/size)), // below memory.in_flight
		}, 1)
		if err != nil {
			return nil, fmt.Errorf("%d octets: %w", size, err)
		}
		r.points = append(r.points, p)
	}
	return r, nil
}

func sessionsRow(ctx context.Context, b *bench) (*row, error) {
	r := &row{title: "Sessions at once", input: "sessions", per: flat}
	for _, sessions := range []int{1, 10, 100, 1000, 5000} {
		n := pick(b, 60_000, 15_000)
		if sessions == 1 {
			n /= 5
		}
		p, err := one(ctx, b, float64(sessions), nil, smtptest.LoadOptions{Messages: n, Sessions: sessions}, 1)
		if err != nil {
			return nil, fmt.Errorf("%d sessions: %w", sessions, err)
		}
		r.points = append(r.points, p)
	}
	return r, nil
}

func domainsRow(ctx context.Context, b *bench) (*row, error) {
	r := &row{title: "Destination domains", input: "domains", per: flat}
	for _, domains := range pick(b, []int{1, 10, 100, 1000, 10_000, 100_000}, []int{1, 100, 10_000}) {
		n := max(pick(b, 60_000, 15_000), domains)
		p, err := one(ctx, b, float64(domains), nil, smtptest.LoadOptions{
			Messages: n, Sessions: 50,
			To: func(i int) []string { return []string{"user@d" + strconv.Itoa(i%domains) + ".example"} },
		}, 1)
		if err != nil {
			return nil, fmt.Errorf("%d domains: %w", domains, err)
		}
		r.points = append(r.points, p)
	}
	return r, nil
}

func recipientsRow(ctx context.Context, b *bench) (*row, error) {
	r := &row{title: "Recipients of each message", input: "recipients", per: linear}
	for _, recipients := range []int{1, 10, 100, 1000} {
		n := max(pick(b, 200_000, 20_000)/recipients, 50)
		n = min(n, pick(b, 60_000, 15_000))
		list := make([]string, recipients)
		for k := range list {
			list[k] = "user" + strconv.Itoa(k) + "@many.example"
		}
		p, err := one(ctx, b, float64(recipients), nil, smtptest.LoadOptions{
			Messages: n, Sessions: min(50, n), To: func(int) []string { return list },
		}, recipients)
		if err != nil {
			return nil, fmt.Errorf("%d recipients: %w", recipients, err)
		}
		r.points = append(r.points, p)
	}
	return r, nil
}

// depthInput is the input of the row whose servers start on a queue.
const depthInput = "entries that wait"

func depthRow(ctx context.Context, b *bench) (*row, error) {
	r := &row{title: "Depth of the queue", input: depthInput, per: flat}
	for _, depth := range pick(b, []int{0, 100_000, 1_000_000, 10_000_000}, []int{0, 100_000, 300_000}) {
		f := filling{entries: depth, size: 1 << 10, domains: max(1, min(20_000, depth/50)), tenants: 1}
		p, err := one(ctx, b, float64(depth), f.run(ctx, b), smtptest.LoadOptions{
			Messages: pick(b, 60_000, 15_000), Sessions: 50,
		}, 1)
		if err != nil {
			return nil, fmt.Errorf("%d entries: %w", depth, err)
		}
		r.points = append(r.points, p)
	}
	return r, nil
}
