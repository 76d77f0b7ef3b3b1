package bearer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	keepAnswers = time.Minute // how long a good token is believed without asking again
	maxAnswers  = 4096
)

// introspected remembers good tokens by their hash, so that a client that connects often is asked for once a minute.
type introspected struct {
	slots chan struct{} // questions at once

	mu   sync.Mutex
	good map[[sha256.Size]byte]answer
}

type answer struct {
	subject string
	until   time.Time
}

func (i *introspected) init() {
	i.slots, i.good = make(chan struct{}, parallel), make(map[[sha256.Size]byte]answer)
}

func (i *introspected) find(d [sha256.Size]byte) (string, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	a, ok := i.good[d]
	return a.subject, ok && time.Now().Before(a.until)
}

func (i *introspected) add(d [sha256.Size]byte, a answer) {
	now := time.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.good) >= maxAnswers {
		for old, a := range i.good {
			if !now.Before(a.until) || len(i.good) >= maxAnswers {
				delete(i.good, old)
			}
		}
	}
	i.good[d] = a
}

// introspect asks the issuer of a token (RFC 7662, 2).
func (v *Verifier) introspect(ctx context.Context, token string) (string, error) {
	digest := sha256.Sum256([]byte(token))
	if subject, ok := v.asked.find(digest); ok {
		return subject, nil
	}
	select {
	case v.asked.slots <- struct{}{}:
		defer func() { <-v.asked.slots }()
	case <-ctx.Done():
		return "", fmt.Errorf("wait to ask for the token: %w", context.Cause(ctx))
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.o.Introspection, strings.NewReader(form.Encode()))
	if err != nil {
		return "", fmt.Errorf("ask for the token: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(v.o.ClientID), url.QueryEscape(v.o.ClientSecret)) // RFC 6749, 2.3.1
	var answered json.RawMessage
	if err := v.fetch(req, &answered); err != nil {
		return "", err
	}
	c, err := parseClaims(answered)
	if err != nil {
		return "", fmt.Errorf("the answer of %s is not about a token", req.URL.Host)
	}
	if c.all["active"] != true {
		return "", bad("its issuer says that it is not active")
	}
	var want jwt.Expected
	if _, named := c.all["iss"]; named {
		want.Issuer = v.o.Issuer
	}
	if v.o.Audience != "" {
		want.AnyAudience = jwt.Audience{v.o.Audience}
	}
	if err := c.check(want, v.o.Skew); err != nil {
		return "", err
	}
	subject, err := v.subject(c)
	if err != nil {
		return "", err
	}
	until := time.Now().Add(keepAnswers)
	if end := c.registered.Expiry; end != nil && end.Time().Before(until) {
		until = end.Time()
	}
	v.asked.add(digest, answer{subject: subject, until: until})
	return subject, nil
}
