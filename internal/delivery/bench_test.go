package delivery

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

func countingSink(b *testing.B) (*world, string) {
	b.Helper()
	w, _ := newWorldOf(b, oneZone, nil, smtptest.SinkOptions{}, oneMX(smtptest.Script{})...)
	return w, strings.Repeat(strings.Repeat("x", 98)+"\r\n", 102) // 10 KB
}

// BenchmarkDeliver is one message of 10 KB over a kept session to a sink in the same process.
func BenchmarkDeliver(b *testing.B) {
	w, body := countingSink(b)
	j := w.jobOf(smtp.BodyOf([]byte("Subject: x\r\n\r\n"+body)), "u@example.test")
	expect(b, w.run(context.Background(), j), delivers)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		v := w.d.Deliver(context.Background(), j)
		if v.Attempt.Results[0].Outcome != spool.Delivered {
			b.Fatal(v.Attempt.Results[0].Explanation)
		}
	}
}

// BenchmarkDeliverPolicies is the same where receivers are asked for policies, as a server does.
func BenchmarkDeliverPolicies(b *testing.B) {
	w, _ := newWorldOf(b, oneZone, func(o *Options) { o.Policies = &policies{} }, smtptest.SinkOptions{}, oneMX(smtptest.Script{})...)
	j := w.jobOf(smtp.BodyOf([]byte("Subject: x\r\n\r\n"+strings.Repeat(strings.Repeat("x", 98)+"\r\n", 102))), "u@example.test")
	expect(b, w.run(context.Background(), j), delivers)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		v := w.d.Deliver(context.Background(), j)
		if v.Attempt.Results[0].Outcome != spool.Delivered {
			b.Fatal(v.Attempt.Results[0].Explanation)
		}
	}
}

// BenchmarkDeliverParallel is the same by 20 workers.
func BenchmarkDeliverParallel(b *testing.B) {
	w, body := countingSink(b)
	data := smtp.BodyOf([]byte("Subject: x\r\n\r\n" + body))
	b.SetParallelism(max(1, 20/runtime.GOMAXPROCS(0)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		j := w.jobOf(data, "u@example.test")
		for pb.Next() {
			if v := w.d.Deliver(context.Background(), j); v.Attempt.Results[0].Outcome != spool.Delivered {
				b.Error(v.Attempt.Results[0].Explanation)
			}
		}
	})
}
