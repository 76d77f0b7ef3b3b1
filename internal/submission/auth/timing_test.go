package auth_test

import (
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/internal/submission/auth"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

var timing = flag.Bool("timing", false, "measure whether the time of a failed login tells why it failed; takes a minute of a quiet machine")

// TestTimingTellsNothing compares the times of failures that differ in their cause only: the medians are within 5 %, and
// Welch's t is below 4.5. It needs a machine that does nothing else; TestEachFailureHashesOnce holds the cause of it always.
func TestTimingTellsNothing(t *testing.T) {
	if !*timing {
		t.Skip("needs a minute of a machine that does nothing else: go test ./internal/submission/auth -timing; TestEachFailureHashesOnce holds the cause in CI")
	}
	const tries = 300
	patient := auth.Budget{Failures: 1_000_000, Window: time.Hour, Ban: time.Hour, Longest: time.Hour}
	w := newWorld(t, func(o *auth.Options) {
		o.Cost = auth.Cost{} // the real one
		o.Budgets = auth.Budgets{Address: patient, Account: patient, Home: patient, Global: patient}
	})
	yes := true
	w.create(app("wrong"))
	n := app("disabled")
	disabled := w.create(n).Secret.Reveal()
	n = app("elsewhere")
	n.Networks = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	elsewhere := w.create(n).Secret.Reveal()
	if _, _, err := w.UpdateCredential(t.Context(), "disabled", auth.CredentialChange{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	causes := []struct{ login, password string }{
		{"unknown", "no password of anybody"}, {"wrong", "no password of anybody"}, {"disabled", disabled}, {"elsewhere", elsewhere},
	}
	times := make([][]float64, len(causes))
	order := make([]int, 0, tries*len(causes))
	for i := range causes {
		for range tries {
			order = append(order, i)
		}
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, i := range order {
		client := sasl.PlainClient("", causes[i].login, causes[i].password)
		begin := time.Now()
		_, _, err := w.login(from("192.0.2.1"), client)
		times[i] = append(times[i], float64(time.Since(begin)))
		if !errors.Is(err, sasl.ErrFailed) {
			t.Fatal(causes[i].login, err)
		}
	}
	for i := range causes {
		slices.Sort(times[i])
		times[i] = times[i][:tries*9/10] // the slowest are other programs
		a, b := times[0], times[i]
		diff := math.Abs(median(b)-median(a)) / median(a)
		welch := math.Abs(mean(b)-mean(a)) / math.Sqrt(variance(a)/float64(len(a))+variance(b)/float64(len(b)))
		t.Logf("%-10s median %v, %.2f %% from unknown, t %.2f", causes[i].login, time.Duration(median(b)), 100*diff, welch)
		if diff >= 0.05 || welch >= 4.5 {
			t.Errorf("%s: median differs by %.1f %%, t %.2f", causes[i].login, 100*diff, welch)
		}
	}
}

func median(v []float64) float64 { return v[len(v)/2] }

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

func variance(v []float64) float64 {
	m, sum := mean(v), 0.0
	for _, x := range v {
		sum += (x - m) * (x - m)
	}
	return sum / float64(len(v)-1)
}

// BenchmarkLogin is a login whose password is known from before, which is what busy applications do.
func BenchmarkLogin(b *testing.B) {
	for name, keep := range map[string]time.Duration{"known": 0, "hashed": time.Nanosecond} {
		b.Run(name, func(b *testing.B) {
			w := newBench(b, func(o *auth.Options) { o.CacheTime, o.Cost = keep, auth.Cost{} })
			made, err := w.CreateCredential(b.Context(), auth.NewCredential{Credential: auth.Credential{Tenant: "default", Login: "app1"}})
			if err != nil {
				b.Fatal(err)
			}
			secret := made.Secret.Reveal()
			response := []byte("\x00app1\x00" + secret)
			b.ReportAllocs()
			for b.Loop() {
				server, _ := w.Begin(b.Context(), "PLAIN", from("192.0.2.1"), auth.Policy{}, nil)
				if _, done, err := server.Next(b.Context(), response); err != nil || !done {
					b.Fatal(err)
				}
			}
		})
	}
}
