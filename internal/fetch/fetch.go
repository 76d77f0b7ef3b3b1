package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godwit-mta/godwit/internal/dns"
)

// Resolver finds addresses. [dns.Resolver] is one.
type Resolver interface {
	LookupAddrs(ctx context.Context, host string) (dns.Addrs, error)
}

// Options make a Client. Resolver is required; other zero values mean the defaults named.
type Options struct {
	Resolver Resolver
	// AllowedNetworks may be connected to although no host on the internet has an address there; none.
	AllowedNetworks []netip.Prefix
	Ports           []uint16       // that a URL may name; 443
	RootCAs         *x509.CertPool // nil: the system's

	Timeout  time.Duration // of one exchange, from lookup to last octet; 60 s (RFC 8461, 3.3)
	MaxBody  int           // octets of an answer; 64 KiB (RFC 8461, 3.3)
	Parallel int           // exchanges at once, others wait; 32

	// Dial connects to an address that was checked. Nil means a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client exchanges documents. It is safe for concurrent use and keeps neither goroutine nor connection.
type Client struct {
	o       Options
	client  *http.Client
	slots   chan struct{}
	allowed atomic.Pointer[[]netip.Prefix]
}

const (
	maxHeader = 16 << 10
	maxTries  = 4 // addresses of one host
)

// New checks the options. It connects to nothing.
func New(o Options) (*Client, error) {
	if o.Resolver == nil {
		return nil, errors.New("fetch: no resolver")
	}
	if o.Timeout < 0 || o.MaxBody < 0 || o.Parallel < 0 {
		return nil, errors.New("fetch: a limit is negative")
	}
	if len(o.Ports) == 0 {
		o.Ports = []uint16{443}
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.MaxBody == 0 {
		o.MaxBody = 64 << 10
	}
	if o.Parallel == 0 {
		o.Parallel = 32
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	c := &Client{o: o, slots: make(chan struct{}, o.Parallel)}
	c.SetAllowedNetworks(o.AllowedNetworks)
	c.client = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:       c.dial,
			TLSClientConfig:   &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true, DisableCompression: true,
			MaxResponseHeaderBytes: maxHeader,
		},
	}
	return c, nil
}

// SetAllowedNetworks puts other allowed networks in place of those there are.
func (c *Client) SetAllowedNetworks(list []netip.Prefix) {
	list = slices.Clone(list)
	c.allowed.Store(&list)
}

// Get returns the document at rawURL and its Content-Type as it was sent. Only the status 200 is a document; anything
// else is an [*Error].
func (c *Client) Get(ctx context.Context, rawURL string) (body []byte, contentType string, err error) {
	body, header, err := c.exchange(ctx, http.MethodGet, rawURL, "", nil)
	if err != nil {
		return nil, "", err
	}
	return body, header.Get("Content-Type"), nil
}

// Post sends a document to rawURL. Each status of the class 2xx is a success; anything else is an [*Error].
func (c *Client) Post(ctx context.Context, rawURL, contentType string, body []byte) error {
	_, _, err := c.exchange(ctx, http.MethodPost, rawURL, contentType, body)
	return err
}

// CheckURL says whether a URL may be asked at all, before anything is looked up. The error is an [*Error].
func (c *Client) CheckURL(rawURL string) error {
	_, err := c.parse(rawURL)
	return err
}

func (c *Client) parse(rawURL string) (*url.URL, error) {
	bad := func(format string, args ...any) (*url.URL, error) {
		return nil, &Error{Kind: Forbidden, Detail: fmt.Sprintf(format, args...)}
	}
	if len(rawURL) > 2048 {
		return bad("the URL is longer than 2,048 octets")
	}
	u, err := url.Parse(rawURL)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return bad("it is no URL such as https://example.com/path")
	case u.Scheme != "https":
		return bad("only https is spoken")
	case u.User != nil:
		return bad("a URL must not hold a user name")
	}
	port := 443
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil {
			return bad("its port is not a number")
		}
	}
	if port < 1 || port > 65535 || !slices.Contains(c.o.Ports, uint16(port)) {
		return bad("port %d is not asked, only %s", port, list(c.o.Ports))
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

func list(ports []uint16) string {
	var out []string
	for _, p := range ports {
		out = append(out, strconv.Itoa(int(p)))
	}
	return strings.Join(out, ", ")
}

func (c *Client) exchange(ctx context.Context, method, rawURL, contentType string, body []byte) ([]byte, http.Header, error) {
	u, err := c.parse(rawURL)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, nil, &Error{Kind: Timeout, Host: u.Host, Detail: "no turn came in time", err: context.Cause(ctx)}
	}
	req := &http.Request{Method: method, URL: u, Host: u.Host, Header: http.Header{"User-Agent": {"Godwit"}}}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", contentType)
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	// The trace tells a handshake that failed; most of its errors have no type.
	var handshake atomic.Bool
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { handshake.Store(err != nil) },
	}))
	res, err := c.client.Do(req)
	if err != nil {
		e := classify(ctx, u.Host, err)
		if e.Kind == Broken && handshake.Load() {
			e.Kind, e.Detail = Handshake, "TLS failed: "+plain(err)
		}
		return nil, nil, e
	}
	defer res.Body.Close()
	switch ok := res.StatusCode == http.StatusOK; {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return nil, nil, &Error{Kind: Redirect, Host: u.Host, Status: res.StatusCode,
			Detail: fmt.Sprintf("answered with status %d, a redirect, which is not followed", res.StatusCode)}
	case !ok && (method != http.MethodPost || res.StatusCode < 200 || res.StatusCode > 299):
		return nil, nil, &Error{Kind: Status, Host: u.Host, Status: res.StatusCode,
			Detail: fmt.Sprintf("answered with status %d", res.StatusCode)}
	}
	if method == http.MethodPost { // what it says besides is of no matter
		return nil, res.Header, nil
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, int64(c.o.MaxBody)+1))
	if err != nil {
		return nil, nil, classify(ctx, u.Host, err)
	}
	if len(answer) > c.o.MaxBody {
		return nil, nil, &Error{Kind: TooLarge, Host: u.Host, Detail: fmt.Sprintf("sent more than %d octets", c.o.MaxBody)}
	}
	return answer, res.Header, nil
}

// dial looks the host up, judges each address, and connects to the first of those that may be which answers.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &Error{Kind: Forbidden, Detail: "its host cannot be read"}
	}
	var ips []netip.Addr
	if literal, err := netip.ParseAddr(host); err == nil {
		ips = []netip.Addr{literal}
	} else {
		found, err := c.o.Resolver.LookupAddrs(ctx, host)
		if err != nil {
			return nil, &Error{Kind: Lookup, Host: host, Detail: explain(err), err: err}
		}
		ips = found.IPs
	}
	var last *Error
	tried := 0
	for _, ip := range ips {
		if reason, bad := c.unusable(ip); bad {
			if last == nil {
				last = &Error{Kind: Forbidden, Host: host, Detail: fmt.Sprintf("%s is not connected to: %s", ip, reason)}
			}
			continue
		}
		if tried == maxTries {
			break
		}
		tried++
		conn, err := c.dialOne(ctx, network, ip, port, len(ips)-tried)
		if err == nil {
			return conn, nil
		}
		last = &Error{Kind: Connect, Host: host, Detail: fmt.Sprintf("no connection to %s: %s", ip, plain(err)), err: err}
		if ctx.Err() != nil {
			last.Kind = Timeout
			return nil, last
		}
	}
	if last == nil {
		last = &Error{Kind: Lookup, Host: host, Detail: "it has no address"}
	}
	return nil, last
}

// dialOne leaves time for others if there are any.
func (c *Client) dialOne(ctx context.Context, network string, ip netip.Addr, port string, others int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && others > 0 {
		limited, cancel := context.WithTimeout(ctx, min(10*time.Second, time.Until(deadline)/2))
		defer cancel()
		ctx = limited
	}
	return c.o.Dial(ctx, network, net.JoinHostPort(ip.String(), port))
}

func (c *Client) unusable(a netip.Addr) (string, bool) {
	for _, p := range *c.allowed.Load() {
		if p.Contains(a.Unmap()) {
			return "", false
		}
	}
	return dns.Unusable(a)
}
