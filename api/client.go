package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

// maxAnswer bounds what the client reads of one answer: 64 MiB.
const maxAnswer = 64 << 20

// Client speaks the HTTP interface. It is safe for concurrent use.
type Client struct {
	http *http.Client
	base string
	at   string // what people know the other side as
}

// NewSocketClient returns a client for the admin socket at path.
func NewSocketClient(path string) *Client {
	var d net.Dialer
	return &Client{
		http: &http.Client{
			Timeout: 2 * time.Minute,
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return d.DialContext(ctx, "unix", path)
				},
				DisableCompression: true,
			},
		},
		base: "http://godwit",
		at:   path,
	}
}

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns what the server is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Queues lists queues.
func (c *Client) Queues(ctx context.Context, q QueueQuery) (QueueList, error) {
	v := url.Values{}
	set(v, "tenant", q.Tenant)
	set(v, "domain", q.Domain)
	set(v, "state", q.State)
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return call[QueueList](ctx, c, http.MethodGet, "/v1/queues?"+v.Encode(), nil)
}

// Queue shows the queues of one domain, one per tenant, with up to limit entries of each.
func (c *Client) Queue(ctx context.Context, domain, tenant string, limit int) ([]QueueDetail, error) {
	v := url.Values{}
	set(v, "tenant", tenant)
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	return call[[]QueueDetail](ctx, c, http.MethodGet, "/v1/queues/"+url.PathEscape(domain)+"?"+v.Encode(), nil)
}

// Message shows one message.
func (c *Client) Message(ctx context.Context, id string) (Message, error) {
	return call[Message](ctx, c, http.MethodGet, "/v1/messages/"+url.PathEscape(id), nil)
}

// Act carries out an action; it is durable when Act returns without an error. An action on millions of entries takes
// minutes and ends early with ctx, so only ctx bounds it.
func (c *Client) Act(ctx context.Context, a Action) (ActionResult, error) {
	unhurried, patient := *c.http, *c
	unhurried.Timeout = 0
	patient.http = &unhurried
	return call[ActionResult](ctx, &patient, http.MethodPost, "/v1/actions", a)
}

// SpoolStats returns the spool in numbers.
func (c *Client) SpoolStats(ctx context.Context) (SpoolStats, error) {
	return call[SpoolStats](ctx, c, http.MethodGet, "/v1/spool/stats", nil)
}

// Reload has the server load its configuration file again. A bad file changes nothing and is a Problem.
func (c *Client) Reload(ctx context.Context) (ReloadResult, error) {
	return call[ReloadResult](ctx, c, http.MethodPost, "/v1/reload", struct{}{})
}

func set(v url.Values, key, value string) {
	if value != "" {
		v.Set(key, value)
	}
}

// call sends in as JSON, nothing if it is nil, and reads the answer.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	if in == nil {
		return send[T](ctx, c, method, path, "", nil)
	}
	p, err := json.Marshal(in)
	if err != nil {
		var none T
		return none, fmt.Errorf("encode request: %w", err)
	}
	return send[T](ctx, c, method, path, "application/json", bytes.NewReader(p))
}

// send sends body, of a type unless it is nil, and reads the answer.
func send[T any](ctx context.Context, c *Client, method, path, contentType string, body io.Reader) (T, error) {
	var out T
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return out, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return out, c.explain(err)
	}
	defer res.Body.Close()
	p, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return out, fmt.Errorf("read answer: %w", err)
	}
	if res.StatusCode >= 300 {
		problem := &Problem{Title: http.StatusText(res.StatusCode), Status: res.StatusCode}
		if err := json.Unmarshal(p, problem); err != nil {
			problem.Detail = string(bytes.TrimSpace(p[:min(len(p), 512)]))
		}
		return out, problem
	}
	if err := json.Unmarshal(p, &out); err != nil {
		return out, fmt.Errorf("decode answer: %w", err)
	}
	return out, nil
}

// explain says what an operator can do about a server that cannot be reached.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no server answers on %s: is godwit running, and is this its data_dir?", c.at)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission for %s: run this as the server's user or as root", c.at)
	}
	return fmt.Errorf("call %s: %w", c.at, err)
}
