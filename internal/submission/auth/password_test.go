package auth

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestPasswordPolicy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		password, login string
		good            bool
	}{
		{"", "app", false},
		{"short1!x", "app", false},
		{"12345678901", "app", false},
		{"passwordpassword", "app", false},
		{"Password123456", "app", false},
		{"P@ssw0rd2024!!", "app", false},
		{"qwertyuiopasdf", "app", false},
		{"aaaaaaaaaaaaaaaa", "app", false},
		{"abababababababab", "app", false},
		{"abcdefghijklmnop", "app", false},
		{"9876543210987654", "app", false},
		{"correcthorsebatterystaple", "app", false},
		{"letmein-letmein-letmein", "app", false},
		{"Summer2025Summer2026", "app", false},
		{"xk7-shopmailer-qp2v", "shopmailer", false},
		{"xk7-Sh0pM4iler-qp2v", "shopmailer", false},
		{"xk7-example-qp2vwm", "news@example.com", false},
		{"gw_xk7qp2vwmzt49c", "app", false},
		{"tab\tin xk7qp2vwmzt", "app", false},
		{"ｆｕｌｌwidthxk7qp2v", "app", false},
		{"ﬁnal-xk7qp2vwmzt", "app", false},
		{strings.Repeat("xk7qp2vwmzt49c", 100), "app", false},
		{"xk7qp2vwmzt4", "app", true},
		{"vier Zebras trinken Öl", "app", true},
		{"пароль-из-трёх-слов-9", "app", true},
		{"Gh7#kd-29sl!Qm", "app", true},
		{"ab-xk7qp2vwmzt4", "ab", true}, // parts of two letters are no give-away
	} {
		p, err := checkPassword(c.password, c.login)
		if (err == nil) != c.good {
			t.Errorf("%.30q: %v", c.password, err)
		}
		var input *InputError
		if err != nil && (!errors.As(err, &input) || input.Field != "password") {
			t.Errorf("%.30q: %#v", c.password, err)
		}
		if err != nil && len(c.password) > 4 && strings.Contains(err.Error(), c.password) {
			t.Errorf("the error has the password in it: %v", err)
		}
		if err == nil && p == "" {
			t.Errorf("%q: lost", c.password)
		}
	}
}

func TestGenerated(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 1000 {
		s, err := generatePassword(rand.Reader)
		if err != nil || seen[s.text] || len(s.text) != 35 {
			t.Fatal(s.text, err)
		}
		seen[s.text] = true
	}
	for range 100 { // a generated password fits the policy too
		s, _ := generatePassword(rand.Reader)
		if _, err := checkPassword(s.text, "billing"); err != nil {
			t.Fatal(err)
		}
	}
	k, err := generateKey(rand.Reader, "abcd")
	if err != nil || keyCredential(k.text) != "abcd" || len(k.text) != len("gw_abcd_")+32 {
		t.Fatal(k.text, err)
	}
	for _, s := range []string{"", "gw_", "gw_abcd", "gw_abcd_", "gw__x", "gw_AB_x", "gw_a/b_x", "x" + k.text, "gw_a_" + strings.Repeat("x", 200)} {
		if id := keyCredential(s); id != "" {
			t.Errorf("%q names %q", s, id)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	c := Created{Secret: Secret{"hunter2-hunter2"}}
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("made", "secret", c.Secret, "all", c)
	slog.New(slog.NewTextHandler(&b, nil)).Info("made", "secret", c.Secret, "all", c)
	fmt.Fprintf(&b, "%v %+v %#v %s %q %v", c, c, c, c.Secret, c.Secret, &c)
	if strings.Contains(b.String(), "hunter2") {
		t.Error(b.String())
	}
	if c.Secret.Reveal() != "hunter2-hunter2" {
		t.Error("lost")
	}
}

func TestPHC(t *testing.T) {
	t.Parallel()
	p, err := newArgon2(rand.Reader, "secret words", Cost{MemoryKiB: 64, Passes: 1, Lanes: 1})
	if err != nil {
		t.Fatal(err)
	}
	back, err := parsePHC(p.String())
	if err != nil || !back.matches("secret words") || back.matches("secret word") || back.String() != p.String() {
		t.Fatal(back, err)
	}
	// The reference implementation's own vector: echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1.
	known, err := parsePHC("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	if err != nil || !known.matches("password") {
		t.Error("not what argon2id is elsewhere", err)
	}
	for _, s := range []string{
		"", "x", "$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=16$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=0,t=0,p=0$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=99999999,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=64,t=1,p=256$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=64,t=1,p=1 $c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=64,t=1,p=1$c2E$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$", "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$CTFh",
	} {
		if _, err := parsePHC(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func FuzzPHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m=8,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePHC(s)
		if err != nil {
			return
		}
		if p.String() != s {
			t.Errorf("%q comes back as %q", s, p)
		}
		if _, err := p.cost.filled(); err != nil {
			t.Error(err)
		}
	})
}

func FuzzLogin(f *testing.F) {
	for _, s := range []string{"app1", "App.One@Example.COM", "Ｆull", "\xff", "ñ", strings.Repeat("x", 300), "a\x00b", "K"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		form := loginForm(s)
		if len(form) > 4*maxLogin {
			t.Errorf("%d octets", len(form))
		}
		if checkLogin(form) == nil && loginForm(form) != form {
			t.Errorf("%q has two forms: %q and %q", s, form, loginForm(form))
		}
	})
}
