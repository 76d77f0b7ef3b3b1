package daemon_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/daemon/daemontest"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

var update = flag.Bool("update", false, "rewrite what the scripts expect")

// TestScripts runs each testdata/*.txtar: a whole behaviour of the server in one file.
//
//	zones      DNS, as dnstest takes it
//	hosts      JSON: loopback address to smtptest.Script
//	settings   JSON: "untrusted", "max_age", "delay_notices"; all may be left out
//	dialog     lines "C: " sent, "S: " expected as the begin of a reply line, "C! " sent as written, with Go's escapes and no line end
//	outcomes   what the event log must tell, sorted: type recipient reason
//	mail       what mail hosts must have taken, sorted: recipient, then the first line of the body or the subject of a report
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			runScript(t, file)
		})
	}
}

type scriptSettings struct {
	Untrusted    bool   `json:"untrusted"`
	MaxAge       string `json:"max_age"`
	DelayNotices string `json:"delay_notices"`
	DelayAfter   string `json:"delay_after"`
}

func runScript(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	part := make(map[string]string)
	for _, f := range archive.Files {
		part[f.Name] = string(f.Data)
	}
	var settings scriptSettings
	decode(t, cmp.Or(part["settings"], "{}"), &settings)
	w := daemontest.New(t, daemontest.Options{Zones: part["zones"], Config: settings.apply(t)})
	hosts := make(map[string]smtptest.Script)
	decode(t, cmp.Or(part["hosts"], "{}"), &hosts)
	for address, script := range hosts {
		w.Host(address, script)
	}
	w.Start()
	talk(t, w.Address(), part["dialog"])
	w.WaitEmpty()
	w.Until("reports have arrived and refusals are told", func() bool {
		return len(tellMail(w)) >= strings.Count(part["mail"], "\n") &&
			strings.Count(tellOutcomes(w), "\n") >= strings.Count(part["outcomes"], "\n")
	})

	got := map[string]string{"outcomes": tellOutcomes(w), "mail": strings.Join(tellMail(w), "")}
	for i, f := range archive.Files {
		text, ok := got[f.Name]
		if !ok || text == string(f.Data) {
			continue
		}
		if *update {
			archive.Files[i].Data = []byte(text)
			continue
		}
		t.Errorf("%s: got\n%swant\n%s", f.Name, text, f.Data)
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

func (s *scriptSettings) apply(t *testing.T) func(*config.Config) {
	return func(c *config.Config) {
		if s.Untrusted {
			c.Listeners[0].TrustedNetworks = nil
		}
		for text, set := range map[string]func(time.Duration){
			s.MaxAge:     func(d time.Duration) { c.Delivery.MaxAge = map[string]time.Duration{config.DefaultStream: d} },
			s.DelayAfter: func(d time.Duration) { c.Delivery.DelayNoticeAfter = d },
		} {
			if text == "" {
				continue
			}
			d, err := time.ParseDuration(text)
			if err != nil {
				t.Fatal(err)
			}
			set(d)
		}
		c.Delivery.DelayNotices = cmp.Or(s.DelayNotices, c.Delivery.DelayNotices)
	}
}

// talk plays the client's part of a dialog.
func talk(t *testing.T, address, dialog string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(daemontest.Patience)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for n, line := range strings.Split(strings.TrimSuffix(dialog, "\n"), "\n") {
		switch kind, text, _ := strings.Cut(line, " "); kind {
		case "C:", "C!":
			if text, err = unquote(kind, text); err != nil {
				t.Fatalf("line %d: %v", n+1, err)
			}
			if _, err := c.Write([]byte(text)); err != nil {
				t.Fatalf("line %d: %v", n+1, err)
			}
		case "S:":
			got, err := r.ReadString('\n')
			if err != nil || !strings.HasPrefix(got, text) {
				t.Fatalf("line %d: got %q (%v), want %q", n+1, got, err, text)
			}
		case "":
		default:
			t.Fatalf("line %d: %q is neither C:, C! nor S:", n+1, line)
		}
	}
}

func unquote(kind, text string) (string, error) {
	if kind == "C:" {
		return text + "\r\n", nil
	}
	return strconv.Unquote(`"` + text + `"`)
}

// tellOutcomes tells what became of each recipient.
func tellOutcomes(w *daemontest.World) string {
	var lines []string
	for _, e := range w.Events() {
		line := fmt.Sprintf("%s %s %s\n", e.Type, cmp.Or(e.Recipient, "-"), e.Reason)
		switch e.Type {
		case event.Attempted, event.Reported, event.Accepted:
			continue
		case event.Deferred: // how often is a matter of time
			if slices.Contains(lines, line) {
				continue
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// tellMail tells what arrived where.
func tellMail(w *daemontest.World) []string {
	var lines []string
	for _, r := range w.Received() {
		head, body, _ := strings.Cut(string(r.Body), "\r\n\r\n")
		first, _, _ := strings.Cut(body, "\r\n")
		if r.From == "" {
			_, subject, _ := strings.Cut(head, "\r\nSubject: ")
			first, _, _ = strings.Cut(subject, "\r\n")
		}
		for _, to := range r.Recipients {
			lines = append(lines, to+" "+first+"\n")
		}
	}
	slices.Sort(lines)
	return lines
}
