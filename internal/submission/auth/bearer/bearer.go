// Package bearer tells whose an access token is. A token is either a JWT that its issuer has signed (RFC 7519, RFC 9068),
// checked here with the issuer's published keys (RFC 7517), or opaque, and then the issuer is asked (RFC 7662).
//
//	v, err := bearer.New(bearer.Options{Issuer: "https://login.example.com", Audience: "godwit"})
//	subject, err := v.Verify(ctx, token) // errors: auth.ErrToken, or that it could not be told
//
// Only signatures with public keys are taken, of the algorithms that are listed, and the key decides which of them fits:
// neither "none" nor a shared secret can be smuggled in by a header (RFC 8725, 3.1). Keys are kept for an hour, and looked
// for again when a token names an unknown one, at most once a minute; if the issuer cannot be reached those known are good
// for a day.
//
// Tokens, signatures and keys are read by go-jose. Its companion go-oidc is not used: its set of keys asks again for each
// unknown one, reads answers of any size, keeps no key when the issuer is away, and asks on a goroutine that nobody waits for.
//
// No other address is asked than those configured, and the one that the issuer's own discovery document names (OpenID
// Connect Discovery 1.0, 4): redirects are refused, as are answers that are too large or take too long.
package bearer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/godwit-mta/godwit/internal/submission/auth"
)

// Options make a Verifier. Issuer is required; so is Audience, but for introspection.
type Options struct {
	Issuer   string // URL, as it stands in "iss"
	Audience string // what "aud" must hold
	Claim    string // that names the credential; "sub". Of "email", only one that "email_verified" does not deny
	// Keys is the URL of the JWKS; empty: it is found by discovery.
	Keys string
	// Algorithms that signatures may have; default: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA.
	Algorithms []string
	Skew       time.Duration // how far clocks may be apart; 1 min

	// Introspection is the URL that tells of opaque tokens; with it no token is read as JWT.
	Introspection          string
	ClientID, ClientSecret string

	Roots *x509.CertPool // that the issuer's HTTPS is checked with; nil: the system's

	KeepKeys  time.Duration // 1 h
	KeepStale time.Duration // how long keys are good if newer ones cannot be had; 24 h
	Pause     time.Duration // between two questions for keys; 1 min
	Timeout   time.Duration // of one question; 10 s
}

// Verifier checks tokens of one issuer. It is safe for concurrent use and keeps no goroutine.
type Verifier struct {
	o          Options
	algorithms []jose.SignatureAlgorithm // of o
	client     *http.Client
	keys       keySet
	asked      introspected
}

const (
	maxToken  = 16 << 10 // octets
	maxAnswer = 1 << 20  // octets
	parallel  = 16       // questions for tokens at once
)

// New checks the options. It asks nobody.
func New(o Options) (*Verifier, error) {
	if o.Issuer == "" {
		return nil, errors.New("bearer: an issuer is required")
	}
	if o.Audience == "" && o.Introspection == "" {
		return nil, errors.New("bearer: an audience is required: a token made for any other service would do")
	}
	for _, u := range []string{o.Issuer, o.Keys, o.Introspection} {
		if u == "" {
			continue
		}
		if _, err := safeURL(u); err != nil {
			return nil, fmt.Errorf("bearer: %w", err)
		}
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = algorithmNames()
	}
	for _, a := range o.Algorithms {
		if !slices.Contains(algorithmNames(), a) {
			return nil, fmt.Errorf("bearer: algorithm %q is not one of %s", a, strings.Join(algorithmNames(), ", "))
		}
	}
	if o.Claim == "" {
		o.Claim = "sub"
	}
	period := func(p *time.Duration, def time.Duration) {
		if *p == 0 {
			*p = def
		}
	}
	period(&o.Skew, time.Minute)
	period(&o.KeepKeys, time.Hour)
	period(&o.KeepStale, 24*time.Hour)
	period(&o.Pause, time.Minute)
	period(&o.Timeout, 10*time.Second)
	if o.Skew < 0 || o.KeepKeys < 0 || o.KeepStale < 0 || o.Pause < 0 || o.Timeout < 0 {
		return nil, errors.New("bearer: a time is below 0")
	}
	dialer := &net.Dialer{Timeout: o.Timeout}
	v := &Verifier{o: o, client: &http.Client{
		Timeout: o.Timeout,
		// Whoever answers does not choose whom we ask next.
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect },
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, TLSHandshakeTimeout: o.Timeout,
		},
	}}
	for _, a := range o.Algorithms {
		v.algorithms = append(v.algorithms, jose.SignatureAlgorithm(a))
	}
	v.keys.turn = make(chan struct{}, 1)
	v.asked.init()
	return v, nil
}

var errRedirect = errors.New("the answer leads elsewhere, which is not followed")

// safeURL takes https, and http on a loopback address alone.
func safeURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%q is no URL such as https://login.example.com", s)
	}
	a, err := netip.ParseAddr(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || err != nil || !a.IsLoopback()) {
		return nil, fmt.Errorf("%q is not an https URL", s)
	}
	return u, nil
}

// Verify returns the value of the claim that names the credential. The error wraps auth.ErrToken if the token is not
// good; any other says that it could not be told.
func (v *Verifier) Verify(ctx context.Context, token string) (string, error) {
	if token == "" || len(token) > maxToken {
		return "", bad("it is empty or too long")
	}
	if v.o.Introspection != "" {
		return v.introspect(ctx, token)
	}
	return v.verifyJWT(ctx, token)
}

// bad wraps auth.ErrToken with the reason, for logs. Nothing of the token is in it.
func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", auth.ErrToken, fmt.Sprintf(format, args...))
}

// fetch asks for a document in JSON.
func (v *Verifier) fetch(req *http.Request, into any) error {
	req.Header.Set("Accept", "application/json")
	res, err := v.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL may hold what is not for logs
		}
		return fmt.Errorf("ask %s: %w", req.URL.Host, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers with status %d", req.URL.Host, res.StatusCode)
	}
	p, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", req.URL.Host, err)
	}
	if len(p) > maxAnswer {
		return fmt.Errorf("the answer of %s is too large", req.URL.Host)
	}
	if err := json.Unmarshal(p, into); err != nil {
		return fmt.Errorf("the answer of %s is no JSON of the right kind", req.URL.Host)
	}
	return nil
}
