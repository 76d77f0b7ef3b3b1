package smtptest

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLoadTime(t *testing.T) {
	t.Parallel()
	at := time.UnixMicro(1_793_000_000_123_456)
	field := string(appendTimeField(nil, at))
	for name, tc := range map[string]struct {
		head string
		ok   bool
	}{
		"behind other fields":       {"Received: x\r\nSubject: y\r\n" + field + "\r\nbody", true},
		"none":                      {"Subject: y\r\n\r\nbody", false},
		"cut":                       {"Subject: y\r\n" + strings.TrimSuffix(field, "\r\n"), false},
		"no number":                 {"Subject: y\r\nLoad-Time: soon\r\n\r\n", false},
		"within a line of another":  {"Subject: " + field, false},
		"nothing":                   {"", false},
		"more digits than a number": {"Subject: y\r\nLoad-Time: 99999999999999999999\r\n", false},
	} {
		got, ok := loadTime([]byte(tc.head))
		if ok != tc.ok || ok && !got.Equal(at) {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
}

// TestSinkTellsAge lets messages wait between a load and a sink.
func TestSinkTellsAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink, err := NewSink(SinkOptions{Script: Script{Rules: []Rule{{At: AtRcpt, Delay: Duration(3 * time.Second)}}}})
		if err != nil {
			t.Fatal(err)
		}
		if sink.Counters().Age != nil {
			t.Error("age of nothing")
		}
		var serving sync.WaitGroup
		defer serving.Wait()
		_, err = Load(t.Context(), LoadOptions{Messages: 10, Dial: func(ctx context.Context) (net.Conn, error) {
			client, server := Pipe()
			serving.Go(func() { sink.ServeConn(context.WithoutCancel(ctx), server) })
			return client, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		age := sink.Counters().Age
		if age == nil || age.P50 < 3000 || age.Max > 3100 || age.P99 > age.Max {
			t.Errorf("age %+v, want 3 s", age)
		}
	})
}
