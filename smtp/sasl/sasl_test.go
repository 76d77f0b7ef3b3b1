package sasl

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// errCase names the three kinds of errors.
func kind(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrMalformed):
		return "malformed"
	case errors.Is(err, ErrFailed):
		return "failed"
	case errors.Is(err, ErrTemporary):
		return "temporary"
	}
	return "other"
}

// told is what a mechanism asked.
type told struct{ got string }

func (a *told) password(_ context.Context, authzid, authcid, password string) error {
	a.got = authzid + "|" + authcid + "|" + password
	return verdictOf(password)
}

func (a *told) token(_ context.Context, user, token string) error {
	a.got = user + "|" + token
	return verdictOf(token)
}

func verdictOf(secret string) error {
	switch secret {
	case "wrong":
		return fmt.Errorf("%w: told so", ErrFailed)
	case "later":
		return fmt.Errorf("%w: told so", ErrTemporary)
	}
	return nil
}

// play gives responses to a server until it ends; "-" is no initial response. It returns the challenges and the end.
func play(s Server, responses ...string) (challenges []string, end string) {
	for _, r := range responses {
		var response []byte
		if r != "-" {
			response = append([]byte{}, r...)
		}
		challenge, done, err := s.Next(context.Background(), response)
		if err != nil || done {
			if len(challenge) > 0 || err != nil && done {
				return challenges, "challenge at the end"
			}
			if _, done, err := s.Next(context.Background(), []byte("again")); done || !errors.Is(err, ErrMalformed) {
				return challenges, "goes on after its end"
			}
			return challenges, kind(err)
		}
		challenges = append(challenges, string(challenge))
	}
	return challenges, "open"
}

func TestMechanisms(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 256)
	for _, tt := range []struct {
		mechanism  string
		responses  []string
		challenges string
		end        string
		told       string
	}{
		{"PLAIN", []string{"\x00joe\x00secret"}, "", "ok", "|joe|secret"},
		{"PLAIN", []string{"-", "\x00joe\x00secret"}, "", "ok", "|joe|secret"},
		{"PLAIN", []string{"admin\x00joe\x00secret"}, "", "ok", "admin|joe|secret"},
		{"PLAIN", []string{"\x00joe\x00wrong"}, "", "failed", "|joe|wrong"},
		{"PLAIN", []string{"\x00joe\x00later"}, "", "temporary", "|joe|later"},
		{"PLAIN", []string{""}, "", "malformed", ""},
		{"PLAIN", []string{"joe"}, "", "malformed", ""},
		{"PLAIN", []string{"joe\x00secret"}, "", "malformed", ""},
		{"PLAIN", []string{"\x00joe\x00sec\x00ret"}, "", "malformed", ""},
		{"PLAIN", []string{"\x00\x00secret"}, "", "malformed", ""},
		{"PLAIN", []string{"\x00joe\x00"}, "", "malformed", ""},
		{"PLAIN", []string{"\x00jo\re\x00secret"}, "", "malformed", ""},
		{"PLAIN", []string{"\x00joe\x00se\x7fcret"}, "", "malformed", ""},
		{"PLAIN", []string{"\x00joe\x00se\xc0\x80cret"}, "", "malformed", ""}, // NUL, overlong
		{"PLAIN", []string{"\x00joe\x00\xed\xa0\x80"}, "", "malformed", ""},   // surrogate
		{"PLAIN", []string{"\x00" + long + "\x00secret"}, "", "malformed", ""},
		{"PLAIN", []string{long + "\x00joe\x00secret"}, "", "malformed", ""},
		{"PLAIN", []string{"\x00joe\x00" + strings.Repeat("x", 20000)}, "", "malformed", ""},
		{"PLAIN", []string{"\x00joe\x00" + long}, "", "ok", "|joe|" + long},
		{"PLAIN", []string{"\x00josé\x00Å"}, "", "ok", "|josé|Å"},
		{"PLAIN", []string{"\x00jose\u0301\x00A\u030a"}, "", "ok", "|josé|Å"},     // composed
		{"PLAIN", []string{"\x00joe\x00a\u00a0b\u3000c"}, "", "ok", "|joe|a b c"}, // all spaces are one
		{"PLAIN", []string{"\x00joe\x00a\u0378b"}, "", "malformed", ""},           // not assigned
		{"PLAIN", []string{"\x00joe\x00a\u200fb\u2028"}, "", "malformed", ""},     // control by name
		{"LOGIN", []string{"-", "joe", "secret"}, askName + "," + askPassword, "ok", "|joe|secret"},
		{"LOGIN", []string{"joe", "secret"}, askPassword, "ok", "|joe|secret"},
		{"LOGIN", []string{"joe", "wrong"}, askPassword, "failed", "|joe|wrong"},
		{"LOGIN", []string{"-", ""}, askName, "malformed", ""},
		{"LOGIN", []string{""}, "", "malformed", ""},
		{"LOGIN", []string{"joe", ""}, askPassword, "malformed", ""},
		{"LOGIN", []string{"jo\x00e", "secret"}, askPassword, "malformed", ""},
		{"LOGIN", []string{long}, "", "malformed", ""},
		{"EXTERNAL", []string{""}, "", "ok", ""},
		{"EXTERNAL", []string{"-", ""}, "", "ok", ""},
		{"EXTERNAL", []string{"joe"}, "", "ok", "joe"},
		{"EXTERNAL", []string{"wrong"}, "", "failed", "wrong"},
		{"EXTERNAL", []string{"a\x00b"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,a=joe@example.org,\x01host=h\x01port=587\x01auth=Bearer tok.en\x01\x01"}, "", "ok", "joe@example.org|tok.en"},
		{"OAUTHBEARER", []string{"n,,\x01auth=bearer   t\x01\x01"}, "", "ok", "|t"},
		{"OAUTHBEARER", []string{"y,a=a=2Cb=3Dc,\x01auth=Bearer t\x01\x01"}, "", "ok", "a,b=c|t"},
		{"OAUTHBEARER", []string{"n,,\x01auth=Bearer wrong\x01\x01", "\x01"}, `{"status":"invalid_token","schemes":"bearer"}`, "failed", "|wrong"},
		{"OAUTHBEARER", []string{"n,,\x01auth=Bearer later\x01\x01"}, "", "temporary", "|later"},
		{"OAUTHBEARER", []string{"p=tls-exporter,,\x01auth=Bearer t\x01\x01"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,a=,\x01auth=Bearer t\x01\x01"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,a=a=2,\x01auth=Bearer t\x01\x01"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,,auth=Bearer t\x01\x01"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,,\x01auth=Bearer t\x01"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,,\x01auth=Bearer t"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,,\x01auth=Basic t\x01\x01"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,,\x01auth=Bearer \x01\x01"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,,\x01auth=Bearer a\r\nb\x01\x01"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,,\x01\x01"}, "", "malformed", ""},
		{"OAUTHBEARER", []string{""}, "", "malformed", ""},
		{"OAUTHBEARER", []string{"n,,\x01a b=c\x01auth=Bearer t\x01\x01"}, "", "malformed", ""},
		{"XOAUTH2", []string{"user=joe\x01auth=Bearer t\x01\x01"}, "", "ok", "joe|t"},
		{"XOAUTH2", []string{"-", "user=joe\x01auth=Bearer wrong\x01\x01", ""}, `,{"status":"401","schemes":"bearer"}`, "failed", "joe|wrong"},
		{"XOAUTH2", []string{"auth=Bearer t\x01\x01"}, "", "malformed", ""},
		{"XOAUTH2", []string{"user=joe\x01user=jim\x01auth=Bearer t\x01\x01"}, "", "malformed", ""},
		{"XOAUTH2", []string{"user=joe\x01\x01"}, "", "malformed", ""},
	} {
		var a told
		challenges, end := play(newServer(tt.mechanism, &a), tt.responses...)
		var kept []string
		for i, c := range challenges {
			if c != "" || tt.mechanism == "XOAUTH2" || i > 0 {
				kept = append(kept, c)
			}
		}
		if got := strings.Join(kept, ","); got != tt.challenges || end != tt.end || a.got != tt.told {
			t.Errorf("%s %q: challenges %q, %s, told %q", tt.mechanism, tt.responses, got, end, a.got)
		}
	}
}

func newServer(mechanism string, a *told) Server {
	switch mechanism {
	case NamePlain:
		return Plain(a.password)
	case NameLogin:
		return Login(a.password)
	case NameExternal:
		return External(func(_ context.Context, authzid string) error {
			a.got = authzid
			return verdictOf(authzid)
		})
	case NameOAuthBearer:
		return OAuthBearer(a.token)
	case NameXOAuth2:
		return XOAuth2(a.token)
	}
	return nil
}

// agree runs a client against a server.
func agree(t *testing.T, c Client, s Server) error {
	t.Helper()
	_, response, err := c.Start()
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		challenge, done, err := s.Next(context.Background(), response)
		if err != nil || done {
			return err
		}
		if response, err = c.Next(challenge); err != nil {
			return err
		}
	}
	t.Fatal("no end")
	return nil
}

func TestClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		c    Client
		name string
		told string
		end  string
	}{
		{PlainClient("z", "joe", "pw"), NamePlain, "z|joe|pw", "ok"},
		{LoginClient("joe", "pw"), NameLogin, "|joe|pw", "ok"},
		{LoginClient("joe", "wrong"), NameLogin, "|joe|wrong", "failed"},
		{ExternalClient(""), NameExternal, "", "ok"},
		{OAuthBearerClient("a,b=c", "t"), NameOAuthBearer, "a,b=c|t", "ok"},
		{OAuthBearerClient("", "wrong"), NameOAuthBearer, "|wrong", "failed"},
		{XOAuth2Client("joe", "t"), NameXOAuth2, "joe|t", "ok"},
		{XOAuth2Client("joe", "wrong"), NameXOAuth2, "joe|wrong", "failed"},
	} {
		var a told
		if err := agree(t, tt.c, newServer(tt.name, &a)); kind(err) != tt.end || a.got != tt.told {
			t.Errorf("%s: %v, told %q", tt.name, err, a.got)
		}
	}
	if _, err := PlainClient("", "a", "b").Next(nil); err == nil {
		t.Error("PLAIN answers a challenge")
	}
}

// TestScramVector is the example of RFC 7677, 3.
func TestScramVector(t *testing.T) {
	t.Parallel()
	salt, _ := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	v, err := NewVerifier("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	user := ""
	s := ScramSHA256(func(context.Context, string) (Verifier, error) { return v, nil }, nil, func(u string) { user = u }).(*scram)
	s.nonce = func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" }
	challenges, end := play(s, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "")
	if end != "ok" || user != "user" || len(challenges) != 2 ||
		challenges[0] != "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096" ||
		challenges[1] != "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" {
		t.Errorf("%q, %s, %q", challenges, end, user)
	}
	c := ScramSHA256Client("user", "pencil", nil).(*scramClient)
	c.nonce = "rOprNGfwEbeRWgbNEkqO"
	if _, first, _ := c.Start(); string(first) != "n,,n=user,r=rOprNGfwEbeRWgbNEkqO" {
		t.Errorf("%q", first)
	}
	final, err := c.Next([]byte(challenges[0]))
	if err != nil || !bytes.HasSuffix(final, []byte("p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")) {
		t.Errorf("%q %v", final, err)
	}
	if _, err := c.Next([]byte("v=AAAA")); !errors.Is(err, ErrFailed) {
		t.Errorf("a server that knows nothing: %v", err)
	}
}

// scramServer knows "joe" with "secret", and "a,b=c".
func scramServer(binding *ChannelBinding, done func(string)) Server {
	return ScramSHA256(func(_ context.Context, user string) (Verifier, error) {
		switch user {
		case "joe", "a,b=c", "josé":
			return NewVerifier("secret", []byte("0123456789abcdef"), MinIterations)
		case "later":
			return Verifier{}, ErrTemporary
		case "careless":
			return Verifier{}, nil
		}
		return FakeVerifier([]byte("key"), user, 16, MinIterations), ErrFailed
	}, binding, done)
}

func TestScram(t *testing.T) {
	t.Parallel()
	bound := &ChannelBinding{Type: "tls-exporter", Data: []byte("the connection")}
	other := &ChannelBinding{Type: "tls-exporter", Data: []byte("another one")}
	unique := &ChannelBinding{Type: "tls-unique", Data: bound.Data}
	unused := &ChannelBinding{Type: "tls-exporter", Data: bound.Data, Unused: true}
	for _, tt := range []struct {
		name           string
		client, server *ChannelBinding
		user, password string
		want           string
	}{
		{"plain", nil, nil, "joe", "secret", "ok"},
		{"encoded", nil, nil, "a,b=c", "secret", "ok"},
		{"composed", nil, nil, "jose\u0301", "secret", "ok"},
		{"wrong", nil, nil, "joe", "secret2", "failed"},
		{"unknown", nil, nil, "nobody", "secret", "failed"},
		{"later", nil, nil, "later", "secret", "temporary"},
		{"careless", nil, nil, "careless", "secret", "other"},
		{"plus", bound, bound, "joe", "secret", "ok"},
		{"plus, wrong", bound, bound, "joe", "x", "failed"},
		{"in between", other, bound, "joe", "secret", "failed"},
		{"other type", unique, bound, "joe", "secret", "malformed"},
		{"plus is a must", nil, bound, "joe", "secret", "malformed"},
		{"plus is not chosen", nil, unused, "joe", "secret", "ok"},
		{"plus by mistake", bound, unused, "joe", "secret", "malformed"},
		{"plus out of nothing", bound, nil, "joe", "secret", "malformed"},
	} {
		got := ""
		err := agree(t, ScramSHA256Client(tt.user, tt.password, tt.client), scramServer(tt.server, func(u string) { got = u }))
		if kind(err) != tt.want || (got != "") != (tt.want == "ok") {
			t.Errorf("%s: %v, told %q", tt.name, err, got)
		}
	}
}

// TestScramMalformed: messages that break the rules, after those that led there.
func TestScramMalformed(t *testing.T) {
	t.Parallel()
	for _, first := range []string{
		"", "n", "n,", "n,,", "n,,n=joe", "n,,n=joe,", "n,,n=joe,r=", "n,,n=joe,r=short", "n,,r=12345678,n=joe", "x,,n=joe,r=12345678",
		"n,x=y,n=joe,r=12345678", "n,a=,n=joe,r=12345678", "n,,n=,r=12345678", "n,,n=jo=e,r=12345678", "n,,n=joe,r=1234\x015678",
		"n,,m=ext,n=joe,r=12345678", "n,,n=jo\x00e,r=12345678", "n,,n=\xff,r=12345678", "n,,n=" + strings.Repeat("x", 256) + ",r=12345678",
		"n,,n=joe,r=" + strings.Repeat("x", 4096), "p=,,n=joe,r=12345678",
	} {
		if _, end := play(scramServer(nil, nil), first); end != "malformed" {
			t.Errorf("first %.60q: %s", first, end)
		}
	}
	proof := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, tt := range []struct{ final, want string }{
		{"", "malformed"}, {"c=biws", "malformed"}, {"c=biws,r=NONCE", "malformed"}, {"c=biws,r=NONCE,p=", "malformed"},
		{"c=biws,r=NONCE,p=AAAA", "malformed"}, {"c=biws,r=NONCE,p=!!!!", "malformed"}, {"c=!!!!,r=NONCE,p=" + proof, "malformed"},
		{"r=NONCE,c=biws,p=" + proof, "malformed"}, {"c=biws,r=NONCE,p=" + proof + "\n", "malformed"},
		{"c=biws,r=NONCE,p=" + proof, "failed"}, {"c=biws,r=other,p=" + proof, "failed"}, {"c=eSws,r=NONCE,p=" + proof, "failed"},
	} {
		s := scramServer(nil, nil)
		challenge, _, err := s.Next(context.Background(), []byte("n,,n=joe,r=12345678"))
		if err != nil {
			t.Fatal(err)
		}
		nonce, _, _ := strings.Cut(strings.TrimPrefix(string(challenge), "r="), ",")
		if _, _, err = s.Next(context.Background(), []byte(strings.Replace(tt.final, "NONCE", nonce, 1))); kind(err) != tt.want {
			t.Errorf("final %q: %v", tt.final, err)
		}
	}
	// "y" with an offer of -PLUS, and acting as somebody else: both fail, the latter where a wrong password does.
	if _, end := play(scramServer(&ChannelBinding{Unused: true}, nil), "y,,n=joe,r=12345678"); end != "failed" {
		t.Errorf("downgrade: %s", end)
	}
	if challenges, end := play(scramServer(nil, nil), "n,a=admin,n=joe,r=12345678"); end != "open" || len(challenges) != 1 {
		t.Errorf("as somebody else: %s", end)
	}
}

// TestScramUnknown: a name that nobody has is not told from one that somebody has, nor by asking twice.
func TestScramUnknown(t *testing.T) {
	t.Parallel()
	ask := func(user string) string {
		c, end := play(scramServer(nil, nil), "n,,n="+user+",r=12345678")
		if end != "open" {
			t.Fatal(end)
		}
		return c[0][strings.Index(c[0], ",s="):]
	}
	known, unknown, other := ask("joe"), ask("nobody"), ask("nobody2")
	if unknown != ask("nobody") || unknown == other || len(known) != len(unknown) {
		t.Errorf("%q %q %q", known, unknown, other)
	}
	long := FakeVerifier([]byte("k"), "u", 100, MinIterations)
	if len(long.Salt) != 100 || !long.valid() {
		t.Error("long salt")
	}
	for _, bad := range []struct {
		password string
		salt     int
		n        int
	}{{"", 16, 4096}, {"x", 4, 4096}, {"x", 16, 1000}, {"x", 16, MaxIterations + 1}} {
		if _, err := NewVerifier(bad.password, make([]byte, bad.salt), bad.n); err == nil {
			t.Errorf("%+v", bad)
		}
	}
}

func FuzzServers(f *testing.F) {
	for _, s := range []string{
		"\x00joe\x00secret", "n,,n=joe,r=12345678", "c=biws,r=12345678,p=AAAA", "n,a=joe,\x01auth=Bearer t\x01\x01",
		"user=joe\x01auth=Bearer t\x01\x01", "", "=", "p=tls-exporter,,n=joe,r=12345678", "\x00jose\u0301\x00A\u030a",
	} {
		f.Add([]byte(s), []byte(s))
	}
	v := FakeVerifier([]byte("k"), "joe", 16, MinIterations)
	f.Fuzz(func(t *testing.T, one, two []byte) {
		clean := func(what string) {
			if strings.ContainsFunc(what, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
				// U+FFFD itself is a character that may be typed.
				if !bytes.Contains(one, []byte("\ufffd")) && !bytes.Contains(two, []byte("\ufffd")) {
					t.Fatalf("handed on %q", what)
				}
			}
		}
		password := func(_ context.Context, a, b, c string) error { clean(a + b + c); return nil }
		token := func(_ context.Context, a, b string) error { clean(a + b); return ErrFailed }
		for _, s := range []Server{
			Plain(password), Login(password), External(func(_ context.Context, z string) error { clean(z); return nil }),
			OAuthBearer(token), XOAuth2(token),
			ScramSHA256(func(_ context.Context, user string) (Verifier, error) { clean(user); return v, nil }, nil, clean),
			ScramSHA256(func(_ context.Context, user string) (Verifier, error) { clean(user); return v, nil }, &ChannelBinding{Type: "tls-exporter"}, clean),
		} {
			for _, r := range [][]byte{one, two, {}} {
				challenge, done, err := s.Next(context.Background(), r)
				if err != nil && kind(err) == "other" {
					t.Fatalf("%T: %v", s, err)
				}
				if (done || err != nil) && len(challenge) > 0 {
					t.Fatalf("%T: challenge at the end", s)
				}
				if done || err != nil {
					break
				}
			}
		}
	})
}

func FuzzScramClient(f *testing.F) {
	f.Add("r=12345678x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "v=AAAA")
	f.Fuzz(func(t *testing.T, one, two string) {
		c := ScramSHA256Client("joe", "secret", nil).(*scramClient)
		c.nonce = "12345678"
		_, _, _ = c.Start()
		if strings.Contains(one, "i=") && len(one)-strings.LastIndex(one, "i=") > 6 {
			return // honest work, and too much of it
		}
		if _, err := c.Next([]byte(one)); err != nil {
			return
		}
		if _, err := c.Next([]byte(two)); err == nil && len(two) < 40 {
			t.Fatal("a server that knows nothing is believed")
		}
	})
}
