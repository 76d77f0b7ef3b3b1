package sasl

import (
	"bytes"
	"context"
	"errors"
	"strings"
)

// TokenFunc checks a bearer token. user may be empty with OAUTHBEARER: the token then says who it is. It returns nil, or
// an error that wraps ErrFailed or ErrTemporary.
type TokenFunc func(ctx context.Context, user, token string) error

// OAuthBearer is OAUTHBEARER (RFC 7628): a bearer token (RFC 6750). If the token is refused the client is told so in a
// challenge, which it answers, and only then does the exchange fail (RFC 7628, 3.2.3).
func OAuthBearer(verify func(ctx context.Context, user, token string) error) Server {
	return &oauth{verify: verify, parse: parseBearer, refusal: `{"status":"invalid_token","schemes":"bearer"}`}
}

// XOAuth2 is XOAUTH2, the form that was there before OAUTHBEARER and that many clients know alone.
func XOAuth2(verify func(ctx context.Context, user, token string) error) Server {
	return &oauth{verify: verify, parse: parseXOAuth2, refusal: `{"status":"401","schemes":"bearer"}`}
}

type oauth struct {
	verify      TokenFunc
	parse       func(response string) (user, token string, err error)
	refusal     string
	begun, over bool
	failed      error // the client was told and is to answer
}

func (o *oauth) Next(ctx context.Context, response []byte) ([]byte, bool, error) {
	switch {
	case o.over:
		return nil, false, over()
	case o.failed != nil:
		o.over = true
		return nil, false, o.failed
	case begin(response, &o.begun):
		return nil, false, nil
	}
	user, token, err := o.parse(string(response))
	if err != nil {
		o.over = true
		return nil, false, err
	}
	if err := o.verify(ctx, user, token); err != nil {
		if !errors.Is(err, ErrFailed) {
			o.over = true
			return nil, false, err
		}
		o.failed = err
		return []byte(o.refusal), false, nil
	}
	o.over = true
	return nil, true, nil
}

const (
	pairEnd = "\x01"    // ends each pair, and once more the response
	bearer  = "bearer " // in any case
)

// cutPairs reads pairs of key and value, each with its end, and the end of all (RFC 7628, 3.1).
func cutPairs(s string, pair func(key, value string) error) error {
	for s != pairEnd {
		one, rest, ok := strings.Cut(s, pairEnd)
		if !ok {
			return malformed("pairs do not end")
		}
		key, value, ok := strings.Cut(one, "=")
		if !ok || key == "" {
			return malformed("pair without key")
		}
		for i := range len(key) {
			if c := key[i] | 0x20; c < 'a' || c > 'z' {
				return malformed("key is not of letters")
			}
		}
		if err := pair(key, value); err != nil {
			return err
		}
		s = rest
	}
	return nil
}

// parseToken reads the value of the pair "auth".
func parseToken(value string) (string, error) {
	if len(value) <= len(bearer) || !strings.EqualFold(value[:len(bearer)], bearer) {
		return "", malformed("not a bearer token")
	}
	token := strings.TrimLeft(value[len(bearer):], " ")
	if token == "" || len(token) > longest {
		return "", malformed("token is empty or too long")
	}
	for i := range len(token) { // b64token (RFC 6750, 2.1)
		switch c := token[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~+/=", c) >= 0:
		default:
			return "", malformed("token has characters that none may have")
		}
	}
	return token, nil
}

func parseBearer(s string) (user, token string, err error) {
	h, rest, err := parseGS2(s)
	if err != nil {
		return "", "", err
	}
	if h.flag == 'p' {
		return "", "", malformed("channel binding is not known to this mechanism")
	}
	rest, ok := strings.CutPrefix(rest, pairEnd)
	if !ok {
		return "", "", malformed("no pairs")
	}
	err = cutPairs(rest, func(key, value string) (err error) {
		if key == "auth" {
			if token != "" {
				return malformed("two tokens")
			}
			token, err = parseToken(value)
		}
		return err
	})
	if err == nil && token == "" {
		err = malformed("no token")
	}
	return h.authzid, token, err
}

func parseXOAuth2(s string) (user, token string, err error) {
	seen := false
	err = cutPairs(s, func(key, value string) (err error) {
		switch key {
		case "user":
			if seen {
				return malformed("two names")
			}
			seen = true
			user, err = prepareName(value)
		case "auth":
			if token != "" {
				return malformed("two tokens")
			}
			token, err = parseToken(value)
		}
		return err
	})
	if err == nil && (token == "" || user == "") {
		err = malformed("no name or no token")
	}
	return user, token, err
}

// gs2 is the header of a GS2 mechanism (RFC 5801, 4).
type gs2 struct {
	raw     string // with its last comma
	flag    byte   // 'n', 'y' or 'p'
	binding string // type of channel binding, with 'p'
	authzid string
}

// parseGS2 reads the header and returns what stands behind it.
func parseGS2(s string) (h gs2, rest string, err error) {
	flag, rest, ok := strings.Cut(s, ",")
	zid, rest, ok2 := strings.Cut(rest, ",")
	if !ok || !ok2 {
		return h, "", malformed("no GS2 header")
	}
	switch {
	case flag == "n", flag == "y":
		h.flag = flag[0]
	case strings.HasPrefix(flag, "p="):
		h.flag, h.binding = 'p', flag[2:]
	default:
		return h, "", malformed("GS2 header has no known flag")
	}
	if zid != "" {
		name, ok := strings.CutPrefix(zid, "a=")
		if !ok || name == "" {
			return h, "", malformed("GS2 header has a bad identity")
		}
		if name, err = saslName(name); err != nil {
			return h, "", err
		}
		if h.authzid, err = prepareName(name); err != nil {
			return h, "", err
		}
	}
	h.raw = s[:len(s)-len(rest)]
	return h, rest, nil
}

// nulJoin joins parts with NUL.
func nulJoin(parts ...string) []byte {
	var b bytes.Buffer
	for i, p := range parts {
		if i > 0 {
			b.WriteByte(0)
		}
		b.WriteString(p)
	}
	return b.Bytes()
}
