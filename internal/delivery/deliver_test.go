package delivery

import (
	"testing"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

func TestDeliver(t *testing.T) {
	t.Parallel()
	w, sinks := newWorld(t, oneZone, nil, oneMX(smtptest.Script{})...)
	v := w.deliver("u@example.test")
	expect(t, v, delivers)
	r := &v.Attempt.Results[0]
	if r.Host != "mx1.example.test" || r.Addr.Addr().String() != "127.0.0.2" || r.Addr.Port() != w.port ||
		r.Site != "mx1.example.test" ||
		r.Source != "default" || r.Reply.Code != 250 || !r.RemoteDSN || v.Attempt.Reused || v.Destination {
		t.Errorf("got %+v", r)
	}
	if tm := v.Attempt.Timings; tm.DNS <= 0 || tm.Connect <= 0 || tm.Greeting <= 0 || tm.Mail <= 0 || tm.Data <= 0 {
		t.Errorf("timings %+v", tm)
	}
	if v.Attempt.Bytes != int64(len(text)) {
		t.Errorf("%d octets sent", v.Attempt.Bytes)
	}
	for range 3 {
		v = w.deliver("v@example.test")
		expect(t, v, delivers)
		if !v.Attempt.Reused || v.Attempt.Timings.Connect != 0 || v.Attempt.Timings.DNS != 0 {
			t.Errorf("the session was not used again: %+v", v.Attempt)
		}
	}
	if c := sinks[0].Counters(); c.Connections != 1 || c.Messages != 4 {
		t.Errorf("got %+v", c)
	}
}
