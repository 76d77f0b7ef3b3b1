package daemon_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon"
	"github.com/godwit-mta/godwit/internal/daemon/daemontest"
	"github.com/godwit-mta/godwit/message/dsn"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const zones = `
one.test. 60 IN MX 10 mx.one.test.
mx.one.test. 60 IN A 127.0.4.1
app.test. 60 IN MX 10 mx.app.test.
mx.app.test. 60 IN A 127.0.4.1
down.test. 60 IN MX 10 mx.down.test.
mx.down.test. 60 IN A 127.0.4.9
`

func started(t *testing.T, change func(*config.Config)) (*daemontest.World, *smtptest.Sink) {
	t.Helper()
	w := daemontest.New(t, daemontest.Options{Zones: zones, Config: change})
	sink := w.Host("127.0.4.1", smtptest.Script{})
	w.Start()
	return w, sink
}

// mustAccept fails the test unless each reply is positive.
func mustAccept(t *testing.T, replies []smtp.Reply) {
	t.Helper()
	for _, r := range replies {
		if !r.Positive() {
			t.Fatalf("not accepted: %v", r)
		}
	}
}

// TestBytesArrive: what was handed in arrives byte for byte below the one trace field that we add.
func TestBytesArrive(t *testing.T) {
	t.Parallel()
	w, _ := started(t, nil)
	bodies := []string{
		"Subject: plain\r\n\r\nhello\r\n",
		"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n\r\n.\r\n",
		"Subject: 8bit\r\n\r\nZurich \xfc and \xc3\xbc\r\n",
		"\r\nno header at all\r\n",
		"Subject: long\r\nX-Long: " + strings.Repeat("x", 900) + "\r\n\r\n" + strings.Repeat(strings.Repeat("y", 76)+"\r\n", 30_000),
		"Subject: empty\r\n\r\n",
	}
	for _, body := range bodies {
		mustAccept(t, w.Submit("me@app.test", body, "you@one.test"))
	}
	w.WaitEmpty()
	got := make(map[string]bool)
	for _, r := range w.Received() {
		field, rest, ok := bytes.Cut(r.Body, []byte("+0000\r\n"))
		if !ok || !bytes.HasPrefix(field, []byte("Received: from app.test ([127.0.0.1])\r\n\tby godwit.test with ESMTP id ")) {
			t.Fatalf("trace field: %q", field)
		}
		got[string(rest)] = true
	}
	for _, body := range bodies {
		if !got[body] {
			t.Errorf("did not arrive as sent: %.60q...", body)
		}
	}
}

// TestRestart: what waits, and what is held, is still there after a restart, and goes on.
func TestRestart(t *testing.T) {
	t.Parallel()
	w, _ := started(t, nil)
	mustAccept(t, w.Submit("me@app.test", "\r\nwaits\r\n", "a@down.test"))
	if res, err := w.Client().Act(t.Context(), api.Action{
		Verb: api.Hold, Selection: api.Selection{Queue: "one.test"}, Reason: "test",
	}); err != nil || res.Rule == "" {
		t.Fatalf("hold: %+v, %v", res, err)
	}
	mustAccept(t, w.Submit("me@app.test", "\r\nheld\r\n", "b@one.test"))
	w.Until("the first attempt has failed", func() bool {
		q, err := w.Client().Queue(t.Context(), "down.test", "", 1)
		return err == nil && len(q) == 1 && len(q[0].Entries) == 1 && q[0].Entries[0].Attempts > 0
	})
	w.Stop()
	w.Start()

	list, err := w.Client().Queues(t.Context(), api.QueueQuery{})
	if err != nil || list.Entries != 2 {
		t.Fatalf("after the restart: %+v, %v", list, err)
	}
	held, err := w.Client().Queue(t.Context(), "one.test", "", 10)
	if err != nil || held[0].Queue.Held != 1 || !strings.Contains(held[0].Entries[0].Why.Text, "test") {
		t.Fatalf("held: %+v, %v", held, err)
	}
	w.Host("127.0.4.9", smtptest.Script{}) // what was down is up
	for _, s := range []api.Action{
		{Verb: api.Release, Selection: api.Selection{Queue: "one.test"}},
		{Verb: api.Retry, Selection: api.Selection{Queue: "down.test"}},
	} {
		if res, err := w.Client().Act(t.Context(), s); err != nil || res.Changed != 1 {
			t.Fatalf("%s: %+v, %v", s.Verb, res, err)
		}
	}
	w.WaitEmpty()
	if n := len(w.Received()); n != 2 {
		t.Errorf("%d messages arrived", n)
	}
}

// TestReport: a failure report goes back with what RFC 3461 promised the sender, and one about it never does.
func TestReport(t *testing.T) {
	t.Parallel()
	w := daemontest.New(t, daemontest.Options{Zones: zones})
	w.Host("127.0.4.1", smtptest.Script{Rules: []smtptest.Rule{
		{At: smtptest.AtRcpt, Match: "*@one.test", Reply: "550 5.1.1 <script>no such user"}},
	})
	w.Start()
	tx := &smtpclient.Transaction{
		From: smtp.Sender{Path: smtp.Path{Local: "me", Domain: "app.test"}, Return: smtp.ReturnHeaders, EnvelopeID: "order=7"},
		Recipients: []smtp.Recipient{
			{Path: smtp.Path{Local: "a", Domain: "one.test"}, Original: smtp.OriginalRecipient{Type: "rfc822", Address: "alias@x.test"}},
			{Path: smtp.Path{Local: "b", Domain: "one.test"}, Notify: smtp.NotifyNever},
			{Path: smtp.Path{Local: "c", Domain: "one.test"}, Notify: smtp.NotifyFailure},
		},
		Body: smtp.BodyOf([]byte("Subject: invoice\r\n\r\nsecret text\r\n")),
	}
	mustAccept(t, w.SubmitTransaction(tx))
	w.WaitEmpty()
	got := w.Received()
	if len(got) != 1 || got[0].From != "" || got[0].Recipients[0] != "me@app.test" {
		t.Fatalf("reports: %+v", got)
	}
	report, err := dsn.Parse(got[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	if report.EnvelopeID != "order=7" || len(report.Recipients) != 2 {
		t.Fatalf("report: %+v", report)
	}
	first := report.Recipients[0]
	if first.Original.Address != "alias@x.test" || first.Final.String() != "a@one.test" ||
		first.Status.String() != "5.1.1" || !strings.Contains(first.Diagnostic.Text, "no such user") {
		t.Errorf("recipient: %+v", first)
	}
	if bytes.Contains(got[0].Body, []byte("secret text")) {
		t.Error("RET=HDRS, and the text came back")
	}
}

// TestReload: a bad file changes nothing, a good one counts for the next session.
func TestReload(t *testing.T) {
	t.Parallel()
	var next *config.Config
	var bad error
	var first config.Config
	w := daemontest.New(t, daemontest.Options{
		Zones:  zones,
		Config: func(c *config.Config) { first = *c },
		Load:   func() (*config.Config, error) { return next, bad },
	})
	w.Host("127.0.4.1", smtptest.Script{})
	w.Start()

	bad = config.Problems{{File: "godwit.yaml", Line: 3, Column: 1, What: "is wrong", Advice: "write something else"}}
	_, err := w.Client().Reload(t.Context())
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusUnprocessableEntity || !strings.Contains(p.Detail, "godwit.yaml:3") {
		t.Fatalf("bad file: %v", err)
	}
	mustAccept(t, w.Submit("me@app.test", "\r\nhi\r\n", "a@one.test"))

	c := first
	c.Listeners = []config.Listener{first.Listeners[0]}
	c.Listeners[0].TrustedNetworks = nil
	next, bad = &c, nil
	res, err := w.Client().Reload(t.Context())
	if err != nil || len(res.Changed) != 1 || len(res.NeedRestart) != 0 {
		t.Fatalf("reload: %+v, %v", res, err)
	}
	if r := w.Submit("me@app.test", "\r\nhi\r\n", "a@one.test"); r[0].Code != 550 {
		t.Errorf("nobody is trusted any more, and the reply is %v", r[0])
	}
	w.WaitEmpty()
}

// TestMessageShow: the timeline of a delivered message, and of one that nobody knows.
func TestMessageShow(t *testing.T) {
	t.Parallel()
	w, _ := started(t, nil)
	replies := w.Submit("me@app.test", "From: Me <me@app.test>\r\nSubject: hi\r\n\r\nhi\r\n", "a@one.test")
	mustAccept(t, replies)
	_, id, _ := strings.Cut(replies[0].Text, "queued as ")
	w.WaitEmpty()
	m, err := w.Client().Message(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, e := range m.Events {
		types = append(types, e.Type)
	}
	if got := strings.Join(types, " "); got != "accepted attempted delivered" || m.InSpool || m.Sender != "me@app.test" {
		t.Errorf("timeline %q of %+v", got, m)
	}
	for id, want := range map[string]int{"0000000000000000000g": http.StatusNotFound, "x": http.StatusUnprocessableEntity} {
		var p *api.Problem
		if _, err := w.Client().Message(t.Context(), id); !errors.As(err, &p) || p.Status != want {
			t.Errorf("%s: %v, want a problem with status %d", id, err, want)
		}
	}
}

// TestMetrics: the exposition parses, every metric has help, and a thousand random domains do not make a thousand series.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w, _ := started(t, nil)
	count := func() int {
		res, err := http.Get("http://" + w.HTTP() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		problems, err := promlint.NewWithMetricFamilies(slices.Collect(maps.Values(families))).Lint()
		for _, p := range problems {
			if strings.HasPrefix(p.Metric, "godwit_") {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
		if err != nil {
			t.Error(err)
		}
		for name, f := range families {
			if f.GetHelp() == "" {
				t.Errorf("%s has no help", name)
			}
			n += len(f.Metric)
		}
		return n
	}
	send := func(from, to int) {
		for i := from; i < to; i++ {
			mustAccept(t, w.Submit("me@app.test", "\r\nhi\r\n", fmt.Sprintf("a@d%d.missing.test", i)))
		}
	}
	send(0, 20)
	w.Until("the first are bounced", func() bool { return len(w.Events()) >= 60 })
	before := count()
	send(20, 200)
	w.WaitEmpty()
	if after := count(); after > before+10 {
		t.Errorf("%d series grew to %d with the number of domains", before, after)
	}
}

func TestPublicHTTP(t *testing.T) {
	t.Parallel()
	w, _ := started(t, nil)
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/v1/status": 404} {
		res, err := http.Get("http://" + w.HTTP() + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
}

// TestOneServerPerDirectory: a second server is told what is wrong, and does not disturb the first.
func TestOneServerPerDirectory(t *testing.T) {
	t.Parallel()
	w, _ := started(t, nil)
	c := config.Default()
	c.Hostname, c.DataDir = "other.test", w.Dir
	if _, err := daemon.New(daemon.Options{Config: c}); err == nil || !strings.Contains(err.Error(), "in use by another server") {
		t.Fatalf("second server: %v", err)
	}
	mustAccept(t, w.Submit("me@app.test", "\r\nhi\r\n", "a@one.test"))
	w.WaitEmpty()
	info, err := os.Stat(filepath.Join(w.Dir, "admin.sock"))
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("admin socket: %v, %v", info.Mode(), err)
	}
	if info, err = os.Stat(w.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data_dir: %v, %v", info.Mode(), err)
	}
}

// TestServiceManager: systemd hears that the server is ready, and that it stops.
func TestServiceManager(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	w, _ := started(t, nil)
	for i, want := range []string{"READY=1", "STOPPING=1"} {
		if i == 1 {
			w.Stop()
		}
		if err := l.SetReadDeadline(time.Now().Add(daemontest.Patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		n, err := l.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("heard %q (%v), want %q", buf[:n], err, want)
		}
	}
}

// TestRefusedIsTold: who may not relay stands in the event log.
func TestRefusedIsTold(t *testing.T) {
	t.Parallel()
	w, _ := started(t, func(c *config.Config) { c.Listeners[0].TrustedNetworks = nil })
	w.Submit("me@app.test", "\r\nhi\r\n", "a@one.test")
	w.Until("the refusal is told", func() bool {
		for _, e := range w.Events() {
			if e.Type == event.Refused && e.Client == "127.0.0.1" && e.Reply.Code == 550 {
				return true
			}
		}
		return false
	})
}

// TestBadAddress: a socket that cannot be opened is told with the listener's name, and nothing is left behind.
func TestBadAddress(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := config.Default()
	c.Hostname, c.DataDir = "mx.test", t.TempDir()
	c.Listeners = []config.Listener{{Name: "front", Address: taken.Addr().String()}}
	for range 2 { // the second time shows that the lock was given back
		if _, err := daemon.New(daemon.Options{Config: c, Logger: slog.New(slog.DiscardHandler)}); err == nil ||
			!strings.Contains(err.Error(), "listener front") {
			t.Fatalf("taken address: %v", err)
		}
	}
}
