package bearer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
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
	var c claims
	if err := v.fetch(req, &c); err != nil {
		return "", err
	}
	_, named := c["iss"]
	_, aimed := c["aud"]
	switch {
	case string(c["active"]) != "true":
		return "", bad("its issuer says that it is not active")
	case named && c.text("iss") != v.o.Issuer:
		return "", bad("it is of another issuer")
	case v.o.Audience != "" && (!aimed || !v.forUs(c)):
		return "", bad("it is for another audience")
	}
	if err := c.checkTimes(v.o.Skew, false); err != nil {
		return "", err
	}
	subject, err := v.subject(c)
	if err != nil {
		return "", err
	}
	until := time.Now().Add(keepAnswers)
	if end, there, _ := c.instant("exp"); there && end.Before(until) {
		until = end
	}
	v.asked.add(digest, answer{subject: subject, until: until})
	return subject, nil
}
