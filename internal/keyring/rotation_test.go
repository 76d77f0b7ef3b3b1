package keyring

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/mailauth/dkim"
)

const day = 24 * time.Hour

var letter = [][]byte{[]byte("From: a@example.com\r\nTo: b@example.net\r\nSubject: hello\r\n" +
	"Date: Mon, 1 Jan 2029 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n\r\nhello\r\n")}

// running starts a keyring whose end is the test's.
func running(t *testing.T, o Options) *Keyring {
	t.Helper()
	k, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	return k
}

// mail signs a message and has it verified at every server.
func mail(t *testing.T, k *Keyring, places []Viewpoint) {
	t.Helper()
	keys, err := k.Keys("example.com", "")
	if err != nil || len(keys) != 2 {
		t.Fatalf("%v: %d keys: %v", time.Now(), len(keys), err)
	}
	signer, err := dkim.New(dkim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fields, err := signer.Sign(nil, letter, keys, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range places {
		v, err := dkim.NewVerifier(dkim.VerifyOptions{Resolver: p})
		if err != nil {
			t.Fatal(err)
		}
		results, err := v.Verify(t.Context(), append([][]byte{fields}, letter...), time.Now())
		if err != nil || len(results) != 2 {
			t.Fatalf("%v %v", results, err)
		}
		for _, r := range results {
			if r.Status != dkim.Pass {
				t.Fatalf("%v: at server %s selector %s: %s: %v", time.Now(), p.Name, r.Selector, r.Status, r.Err)
			}
		}
	}
}

// TestRotation lives through 130 days of keys that replace each other every 40, with a name server that is 40 minutes late. At
// no moment does anything sign that is not in DNS everywhere, and what was signed can be verified for three days.
func TestRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		z := newZone(0, 40*time.Minute)
		k := running(t, Options{
			Store: openStore(t), Dir: t.TempDir(), Resolvers: z.servers(), Publisher: z,
			Settings: Settings{RotateEvery: 40 * day}, Times: Times{Poll: 6 * time.Hour}, // nobody sets this clock
		})
		made, err := k.Create(t.Context(), NewKeys{Domain: "Example.com"})
		if err != nil || len(made) != 2 || made[0].State != Published || made[0].Signs {
			t.Fatalf("%+v %v", made, err)
		}
		if keys, err := k.Keys("example.com", ""); len(keys) > 0 || err != nil {
			t.Fatalf("%d keys sign that not all see: %v", len(keys), err)
		}
		time.Sleep(45 * time.Minute)
		used := make(map[string]time.Time) // selector: when it signed last
		for i := range 130 * 24 * 2 {
			time.Sleep(30 * time.Minute)
			keys, err := k.Keys("mail.example.com", "shop")
			if err != nil || len(keys) != 2 || keys[0].Algorithm() == keys[1].Algorithm() {
				t.Fatalf("%v: %d keys: %v", time.Now(), len(keys), err)
			}
			for _, key := range keys {
				used[key.Selector] = time.Now()
			}
			for selector, last := range used {
				if time.Since(last) > 3*day {
					continue
				}
				for _, p := range z.servers() {
					if _, err := dkim.LookupKey(t.Context(), p, "example.com", selector); err != nil {
						t.Fatalf("%v: %s signed at %v, and server %s says: %v", time.Now(), selector, last, p.Name, err)
					}
				}
			}
			if i%(24*2) == 0 {
				mail(t, k, z.servers())
			}
			if f := k.Findings(); len(f) > 0 {
				t.Fatalf("%v: %+v", time.Now(), f)
			}
		}
		if len(used) != 8 {
			t.Errorf("%d keys were used: %v", len(used), used)
		}
		list, err := k.List("example.com", nil)
		if err != nil {
			t.Fatal(err)
		}
		var states []State
		for _, d := range list {
			states = append(states, d.State)
			if d.State == Revoked && (d.Place != "" || !strings.HasSuffix(d.Record.Text, "p=")) {
				t.Errorf("%+v", d)
			}
		}
		if want := []State{Signing, Signing, Revoked, Revoked}; !slices.Equal(states, want) {
			t.Errorf("%v, want %v", states, want)
		}
		for name, w := range z.writes { // the first keys have come to their end
			if strings.HasPrefix(name, "s200001") && w[len(w)-1].text != "" {
				t.Errorf("%s: %v", name, w)
			}
		}
	})
}
