package api

import (
	"net/http"
	"strings"
	"time"
)

// NewKeyClient returns a client for the interface at an HTTP address, such as "http://127.0.0.1:8080", that presents an API key with
// each request (RFC 6750, 2.1). What it may see and do is what the key may.
func NewKeyClient(base, key string) *Client {
	base = strings.TrimSuffix(base, "/")
	return &Client{
		http: &http.Client{
			Timeout:   2 * time.Minute,
			Transport: bearer{key: key, next: &http.Transport{DisableCompression: true}},
			// A redirect would carry the key elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		base: base,
		at:   base,
	}
}

// bearer adds the key to each request.
type bearer struct {
	key  string
	next *http.Transport
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.key)
	return b.next.RoundTrip(r)
}

// CloseIdleConnections implements what [http.Client.CloseIdleConnections] asks for.
func (b bearer) CloseIdleConnections() { b.next.CloseIdleConnections() }
