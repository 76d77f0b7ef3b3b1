package bearer

import (
	"encoding/json"
	"slices"
	"time"
)

// claims are what a token says. Names are compared as they are, other than encoding/json does with structs.
type claims map[string]json.RawMessage

func (c claims) text(name string) string {
	var s string
	if json.Unmarshal(c[name], &s) != nil {
		return ""
	}
	return s
}

// texts reads one string or a list of them.
func (c claims) texts(name string) []string {
	if s := c.text(name); s != "" {
		return []string{s}
	}
	var list []string
	if json.Unmarshal(c[name], &list) != nil {
		return nil
	}
	return list
}

// instant reads a NumericDate (RFC 7519, 2), which may have a fraction.
func (c claims) instant(name string) (t time.Time, there, ok bool) {
	p, there := c[name]
	if !there {
		return t, false, true
	}
	var n float64
	if json.Unmarshal(p, &n) != nil || n < 0 || n > 1<<40 {
		return t, true, false
	}
	return time.Unix(int64(n), 0), true, true
}

// checkTimes holds exp, nbf and iat against the clock (RFC 7519, 4.1.4 to 4.1.6).
func (c claims) checkTimes(skew time.Duration, wantEnd bool) error {
	now := time.Now()
	end, there, ok := c.instant("exp")
	switch {
	case !ok || wantEnd && !there:
		return bad("it does not say when it ends")
	case there && !now.Before(end.Add(skew)):
		return bad("it has expired")
	}
	for _, name := range []string{"nbf", "iat"} {
		begin, there, ok := c.instant(name)
		if !ok || there && begin.After(now.Add(skew)) {
			return bad("it is not valid yet")
		}
	}
	return nil
}

// subject returns what names the credential.
func (v *Verifier) subject(c claims) (string, error) {
	s := c.text(v.o.Claim)
	if s == "" || len(s) > 255 {
		return "", bad("it has no claim %s", v.o.Claim)
	}
	if p, there := c["email_verified"]; there && v.o.Claim == "email" && string(p) != "true" && string(p) != `"true"` {
		return "", bad("its e-mail address is not verified")
	}
	return s, nil
}

func (v *Verifier) forUs(c claims) bool { return slices.Contains(c.texts("aud"), v.o.Audience) }
