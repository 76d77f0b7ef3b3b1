package bearer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/internal/submission/auth/bearer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func b64(p []byte) string { return base64.RawURLEncoding.EncodeToString(p) }

// signer is a private key with its algorithm.
type signer struct {
	alg, kid string
	key      crypto.Signer
}

// keys are made once: RSA takes its time.
var keys = sync.OnceValue(func() map[string]crypto.Signer {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	return map[string]crypto.Signer{"RS": r, "PS": r, "ES256": p256, "ES384": p384, "ES512": p521, "EdDSA": ed}
})

func newSigner(alg string) signer {
	k := keys()
	if key, ok := k[alg]; ok {
		return signer{alg, "key-" + alg, key}
	}
	return signer{alg, "key-" + alg[:2], k[alg[:2]]}
}

func (s signer) jwk() map[string]string {
	switch pub := s.key.Public().(type) {
	case *rsa.PublicKey:
		return map[string]string{"kty": "RSA", "kid": s.kid, "use": "sig", "n": b64(pub.N.Bytes()), "e": b64(big.NewInt(int64(pub.E)).Bytes())}
	case *ecdsa.PublicKey:
		p, err := pub.Bytes()
		if err != nil {
			panic(err)
		}
		half := (len(p) - 1) / 2
		return map[string]string{"kty": "EC", "kid": s.kid, "crv": pub.Params().Name, "x": b64(p[1 : 1+half]), "y": b64(p[1+half:])}
	case ed25519.PublicKey:
		return map[string]string{"kty": "OKP", "kid": s.kid, "crv": "Ed25519", "x": b64(pub)}
	}
	panic("no such key")
}

func (s signer) sign(t *testing.T, header, payload map[string]any) string {
	t.Helper()
	h := map[string]any{"alg": s.alg, "kid": s.kid, "typ": "JWT"}
	for k, v := range header {
		if h[k] = v; v == nil {
			delete(h, k)
		}
	}
	hp, _ := json.Marshal(h)
	pp, _ := json.Marshal(payload)
	text := b64(hp) + "." + b64(pp)
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[s.alg[2:]]
	var sig []byte
	var err error
	if key, ok := s.key.(ed25519.PrivateKey); ok {
		return text + "." + b64(ed25519.Sign(key, []byte(text)))
	}
	sum := hash.New()
	sum.Write([]byte(text))
	digest := sum.Sum(nil)
	switch key := s.key.(type) {
	case *rsa.PrivateKey:
		if s.alg[:2] == "PS" {
			sig, err = rsa.SignPSS(rand.Reader, key, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			sig, err = rsa.SignPKCS1v15(rand.Reader, key, hash, digest)
		}
	case *ecdsa.PrivateKey:
		r, sv, serr := ecdsa.Sign(rand.Reader, key, digest)
		size := (key.Params().BitSize + 7) / 8
		sig, err = append(r.FillBytes(make([]byte, size)), sv.FillBytes(make([]byte, size))...), serr
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(sig)
}

// issuer serves discovery and keys.
type issuer struct {
	*httptest.Server
	fetched atomic.Int32

	mu      sync.Mutex
	keys    []map[string]string
	status  int
	leads   string // where the keys redirect to
	foreign bool   // the document is of another issuer
}

func newIssuer(t *testing.T, signers ...signer) *issuer {
	t.Helper()
	i := &issuer{status: 200}
	for _, s := range signers {
		i.keys = append(i.keys, s.jwk())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		name := i.URL
		if i.foreign {
			name = "https://login.example.net"
		}
		fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, name, i.URL+"/keys")
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.fetched.Add(1)
		if i.leads != "" {
			w.Header().Set("Location", i.leads)
			w.WriteHeader(http.StatusFound)
			return
		}
		w.WriteHeader(i.status)
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": i.keys})
	})
	i.Server = httptest.NewTLSServer(mux)
	i.Config.SetKeepAlivesEnabled(false)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) options() bearer.Options {
	roots := x509.NewCertPool()
	roots.AddCert(i.Certificate())
	return bearer.Options{Issuer: i.URL, Audience: "godwit", Roots: roots}
}

func (i *issuer) verifier(t *testing.T, edit ...func(*bearer.Options)) *bearer.Verifier {
	t.Helper()
	o := i.options()
	for _, e := range edit {
		e(&o)
	}
	v, err := bearer.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (i *issuer) claims(edit ...func(map[string]any)) map[string]any {
	now := time.Now()
	c := map[string]any{"iss": i.URL, "aud": "godwit", "sub": "app1", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix()}
	for _, e := range edit {
		e(c)
	}
	return c
}

func with(name string, value any) func(map[string]any) {
	return func(c map[string]any) {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
}

func TestEachAlgorithm(t *testing.T) {
	t.Parallel()
	var all []signer
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
		all = append(all, newSigner(alg))
	}
	i := newIssuer(t, all...)
	v := i.verifier(t)
	for _, s := range all {
		if subject, err := v.Verify(t.Context(), s.sign(t, nil, i.claims())); err != nil || subject != "app1" {
			t.Errorf("%s: %q, %v", s.alg, subject, err)
		}
		token := s.sign(t, nil, i.claims())
		at := strings.LastIndexByte(token, '.') + 3
		other := byte('A')
		if token[at] == 'A' {
			other = 'B'
		}
		if _, err := v.Verify(t.Context(), token[:at]+string(other)+token[at+1:]); !errors.Is(err, auth.ErrToken) {
			t.Errorf("%s with another signature: %v", s.alg, err)
		}
	}
	if n := i.fetched.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
	only := i.verifier(t, func(o *bearer.Options) { o.Algorithms = []string{"ES256"} })
	if _, err := only.Verify(t.Context(), newSigner("RS256").sign(t, nil, i.claims())); !errors.Is(err, auth.ErrToken) {
		t.Errorf("an algorithm that is not allowed: %v", err)
	}
}

// TestForgeries is what is tried against every checker of tokens (RFC 8725).
func TestForgeries(t *testing.T) {
	t.Parallel()
	s := newSigner("RS256")
	i := newIssuer(t, s, newSigner("ES256"))
	v := i.verifier(t)
	now := time.Now()
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	modulus := s.key.Public().(*rsa.PublicKey).N.Bytes()
	hs := func() string {
		text := b64([]byte(`{"alg":"HS256","kid":"key-RS"}`)) + "." + b64(mustJSON(i.claims()))
		m := hmac.New(sha256.New, modulus)
		m.Write([]byte(text))
		return text + "." + b64(m.Sum(nil))
	}
	for name, token := range map[string]string{
		"nothing":                        "",
		"no JWT":                         "opaque",
		"two parts":                      "a.b",
		"four parts":                     s.sign(t, nil, i.claims()) + ".x",
		"no signature":                   strings.TrimRight(s.sign(t, nil, i.claims()), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
		"alg none":                       b64([]byte(`{"alg":"none"}`)) + "." + b64(mustJSON(i.claims())) + ".",
		"alg NONE":                       b64([]byte(`{"alg":"nOnE"}`)) + "." + b64(mustJSON(i.claims())) + ".",
		"no alg":                         b64([]byte(`{}`)) + "." + b64(mustJSON(i.claims())) + ".",
		"HMAC with the public key":       hs(),
		"a stranger's key":               signer{"RS256", "key-RS", stranger}.sign(t, nil, i.claims()),
		"a stranger's key in the header": signer{"RS256", "x", stranger}.sign(t, map[string]any{"jwk": signer{"RS256", "x", stranger}.jwk()}, i.claims()),
		"alg of another key":             s.sign(t, map[string]any{"alg": "ES256"}, i.claims()),
		"PSS for PKCS":                   s.sign(t, map[string]any{"alg": "PS256"}, i.claims()),
		"another kid":                    s.sign(t, map[string]any{"kid": "key-ES256"}, i.claims()),
		"critical extension":             s.sign(t, map[string]any{"crit": []string{"b64"}}, i.claims()),
		"an ID of a session":             s.sign(t, map[string]any{"typ": "logout+jwt"}, i.claims()),
		"another issuer":                 s.sign(t, nil, i.claims(with("iss", "https://login.example.net"))),
		"issuer with a slash":            s.sign(t, nil, i.claims(with("iss", i.URL+"/"))),
		"issuer in other case":           s.sign(t, nil, i.claims(with("iss", nil), with("ISS", i.URL))),
		"another audience":               s.sign(t, nil, i.claims(with("aud", "other"))),
		"no audience":                    s.sign(t, nil, i.claims(with("aud", nil))),
		"expired":                        s.sign(t, nil, i.claims(with("exp", now.Add(-2*time.Minute).Unix()))),
		"no end":                         s.sign(t, nil, i.claims(with("exp", nil))),
		"an end in words":                s.sign(t, nil, i.claims(with("exp", "tomorrow"))),
		"an endless end":                 s.sign(t, nil, i.claims(with("exp", 1e300))),
		"not yet":                        s.sign(t, nil, i.claims(with("nbf", now.Add(2*time.Minute).Unix()))),
		"of tomorrow":                    s.sign(t, nil, i.claims(with("iat", now.Add(24*time.Hour).Unix()))),
		"no subject":                     s.sign(t, nil, i.claims(with("sub", nil))),
		"a subject that is none":         s.sign(t, nil, i.claims(with("sub", []string{"app1"}))),
		"line end":                       strings.Replace(s.sign(t, nil, i.claims()), ".", ".\n", 1),
		"padded":                         s.sign(t, nil, i.claims()) + "=",
		"too long":                       s.sign(t, nil, i.claims(with("x", strings.Repeat("x", 20_000)))),
	} {
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, auth.ErrToken) {
			t.Errorf("%s: %v", name, err)
		} else if len(token) > 20 && strings.Contains(err.Error(), token[:20]) {
			t.Errorf("%s: the error has the token in it", name)
		}
	}
	for name, token := range map[string]string{
		"several audiences":  s.sign(t, nil, i.claims(with("aud", []string{"other", "godwit"}))),
		"clocks that differ": s.sign(t, nil, i.claims(with("exp", now.Add(-30*time.Second).Unix()), with("iat", now.Add(30*time.Second).Unix()))),
		"no kid":             s.sign(t, map[string]any{"kid": nil}, i.claims()),
		"access token":       s.sign(t, map[string]any{"typ": "at+jwt"}, i.claims()),
		"fraction":           s.sign(t, nil, i.claims(with("exp", float64(now.Unix())+1000.5))),
	} {
		if subject, err := v.Verify(t.Context(), token); err != nil || subject != "app1" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustJSON(v any) []byte {
	p, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return p
}

func TestEmailClaim(t *testing.T) {
	t.Parallel()
	s := newSigner("ES256")
	i := newIssuer(t, s)
	v := i.verifier(t, func(o *bearer.Options) { o.Claim = "email" })
	for _, c := range []struct {
		verified any
		good     bool
	}{{true, true}, {"true", true}, {nil, true}, {false, false}, {"false", false}, {1, false}} {
		token := s.sign(t, nil, i.claims(with("email", "a@example.com"), with("email_verified", c.verified)))
		if subject, err := v.Verify(t.Context(), token); (err == nil) != c.good || c.good && subject != "a@example.com" {
			t.Errorf("%v: %q, %v", c.verified, subject, err)
		}
	}
}

// TestKeysChange: a new key is found when a token names it, and an attacker cannot make us ask more often.
func TestKeysChange(t *testing.T) {
	t.Parallel()
	first, second := newSigner("ES256"), newSigner("EdDSA")
	i := newIssuer(t, first)
	const pause = 50 * time.Millisecond
	v := i.verifier(t, func(o *bearer.Options) { o.Pause = pause })
	if _, err := v.Verify(t.Context(), first.sign(t, nil, i.claims())); err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	i.keys = append(i.keys, second.jwk())
	i.mu.Unlock()
	time.Sleep(60 * time.Millisecond)
	if _, err := v.Verify(t.Context(), second.sign(t, nil, i.claims())); err != nil {
		t.Errorf("the new key: %v", err)
	}
	before, began := i.fetched.Load(), time.Now()
	for n := range 100 {
		token := first.sign(t, map[string]any{"kid": fmt.Sprint("unknown", n)}, i.claims())
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, auth.ErrToken) {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	if n := i.fetched.Load() - before; int64(n) > int64(took/pause)+1 {
		t.Errorf("asked %d times for unknown keys within %v", n, took)
	}
	// The issuer is away: what is known is good.
	i.mu.Lock()
	i.status = 500
	i.mu.Unlock()
	time.Sleep(60 * time.Millisecond)
	if _, err := v.Verify(t.Context(), first.sign(t, map[string]any{"kid": nil}, i.claims())); err != nil {
		t.Errorf("while the issuer is away: %v", err)
	}
}

// TestIssuerTrouble: what is wrong with the issuer is not the client's fault, and nothing leads us elsewhere.
func TestIssuerTrouble(t *testing.T) {
	t.Parallel()
	s := newSigner("ES256")
	asked := make(chan struct{}, 1)
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{} }))
	defer canary.Close()
	for name, spoil := range map[string]func(i *issuer){
		"status":      func(i *issuer) { i.status = 503 },
		"redirect":    func(i *issuer) { i.leads = canary.URL },
		"not its own": func(i *issuer) { i.foreign = true },
		"no keys":     func(i *issuer) { i.keys = nil },
		"bad keys": func(i *issuer) {
			i.keys = []map[string]string{
				{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "EC", "crv": "P-256", "x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))},
				{"kty": "oct", "k": "c2VjcmV0"}, {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, {"kty": "EC", "crv": "P-224"}, {},
				{"kty": "OKP", "crv": "Ed25519", "x": b64(make([]byte, 33))},
			}
			other := newSigner("ES384").jwk() // its curve is of another algorithm than it says
			other["alg"] = "ES256"
			i.keys = append(i.keys, other)
		},
		"a key for encryption": func(i *issuer) {
			i.keys[0]["use"] = "enc"
		},
	} {
		i := newIssuer(t, s)
		spoil(i)
		if _, err := i.verifier(t).Verify(t.Context(), s.sign(t, nil, i.claims())); err == nil || errors.Is(err, auth.ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	i := newIssuer(t, s)
	o := i.options()
	o.Roots = x509.NewCertPool()
	v, err := bearer.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), s.sign(t, nil, i.claims())); err == nil || errors.Is(err, auth.ErrToken) {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	select {
	case <-asked:
		t.Error("the redirect was followed")
	default:
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]bearer.Options{
		"nothing":         {},
		"no audience":     {Issuer: "https://login.example.com"},
		"http":            {Issuer: "http://login.example.com", Audience: "x"},
		"a file":          {Issuer: "file:///etc/passwd", Audience: "x"},
		"with a password": {Issuer: "https://a:b@login.example.com", Audience: "x"},
		"keys over http":  {Issuer: "https://login.example.com", Audience: "x", Keys: "http://169.254.169.254/"},
		"HMAC":            {Issuer: "https://login.example.com", Audience: "x", Algorithms: []string{"HS256"}},
		"none":            {Issuer: "https://login.example.com", Audience: "x", Algorithms: []string{"none"}},
		"time":            {Issuer: "https://login.example.com", Audience: "x", Skew: -1},
	} {
		if _, err := bearer.New(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestIntrospection(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		id, secret, _ := r.BasicAuth()
		if id != "godwit" || secret != "s%2Bcret" || r.Method != http.MethodPost {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answers := map[string]string{
			"good":     `{"active": true, "sub": "app1", "aud": "godwit"}`,
			"several":  `{"active": true, "sub": "app1", "aud": ["x", "godwit"], "exp": 4102444800}`,
			"inactive": `{"active": false}`,
			"words":    `{"active": "true", "sub": "app1", "aud": "godwit"}`,
			"other":    `{"active": true, "sub": "app1", "aud": "other"}`,
			"nobody":   `{"active": true, "aud": "godwit"}`,
			"expired":  `{"active": true, "sub": "app1", "aud": "godwit", "exp": 1000}`,
			"foreign":  `{"active": true, "sub": "app1", "aud": "godwit", "iss": "https://other.example"}`,
			"large":    `{"active": true, "x": "` + strings.Repeat("x", 2<<20) + `"}`,
			"html":     `<html>`,
		}
		fmt.Fprint(w, answers[r.FormValue("token")])
	}))
	s.Config.SetKeepAlivesEnabled(false)
	defer s.Close()
	v, err := bearer.New(bearer.Options{
		Issuer: "https://login.example.com", Audience: "godwit", Introspection: s.URL, ClientID: "godwit", ClientSecret: "s+cret",
	})
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]string{
		"good": "app1", "several": "app1", "inactive": "token", "words": "token", "other": "token", "nobody": "token", "expired": "token",
		"foreign": "token", "large": "trouble", "html": "trouble",
	} {
		subject, err := v.Verify(t.Context(), token)
		got := subject
		switch {
		case errors.Is(err, auth.ErrToken):
			got = "token"
		case err != nil:
			got = "trouble"
		}
		if got != want {
			t.Errorf("%s: %s, want %s (%v)", token, got, want, err)
		}
	}
	before := asked.Load()
	for range 50 {
		if _, err := v.Verify(t.Context(), "good"); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load() - before; n != 0 {
		t.Errorf("asked %d times more", n)
	}
}

func FuzzToken(f *testing.F) {
	v, err := bearer.New(bearer.Options{Issuer: "https://127.0.0.1:1", Audience: "godwit", Timeout: time.Second, Pause: time.Hour})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a.b.c")
	f.Add(b64([]byte(`{"alg":"RS256","kid":"x"}`)) + "." + b64([]byte(`{}`)) + "." + b64([]byte("x")))
	f.Add(b64([]byte(`{"alg":"none"}`)) + ".e30.")
	f.Fuzz(func(t *testing.T, token string) {
		if subject, err := v.Verify(t.Context(), token); err == nil || subject != "" {
			t.Errorf("%q is taken for %q", token, subject)
		}
	})
}
