package main

import (
	"encoding/base64"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/godwit-mta/godwit/api"
)

// cmdLogin logs in to a server and begins a message.
func cmdLogin(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 5)
	conn, err := net.DialTimeout("tcp", args[0], patience)
	ts.Check(err)
	defer conn.Close()
	ts.Check(conn.SetDeadline(time.Now().Add(patience)))
	c := textproto.NewConn(conn)
	say := func(line string) int {
		if line != "" {
			ts.Check(c.PrintfLine("%s", line))
		}
		code, text, err := c.ReadResponse(0)
		if _, is := err.(*textproto.Error); err != nil && !is {
			ts.Check(err)
		}
		ts.Logf("%s: %d %s", strings.SplitN(line, " ", 2)[0], code, text)
		return code
	}
	say("")
	say("EHLO app.example")
	got := []string{strconv.Itoa(say("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+args[1]+"\x00"+args[2]))))}
	if got[0] == "235" {
		got = append(got, strconv.Itoa(say("MAIL FROM:<"+args[3]+">")))
	}
	if want := strings.Join(args[4:], " "); strings.Join(got, " ") != want {
		ts.Fatalf("replies %v, want %s", got, want)
	}
}

func TestParseLimits(t *testing.T) {
	t.Parallel()
	got, err := parseLimits([]string{"messages/hour=1000", "bytes/day=-1"})
	if err != nil || len(got) != 2 || got[0] != (api.Limit{Subject: "messages", Per: "hour", Max: 1000}) || got[1].Max != -1 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "messages", "messages/hour", "messages=1", "messages/hour=many", "messages/hour="} {
		if _, err := parseLimits([]string{bad}); err == nil || !strings.Contains(err.Error(), "messages/hour=1000") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseExpiry(t *testing.T) {
	t.Parallel()
	now := time.Now()
	if got, err := parseExpiry("90d", now); err != nil || got.Sub(now) != 90*24*time.Hour {
		t.Error(got, err)
	}
	if got, err := parseExpiry("2031-02-03", now); err != nil || got.Format(time.DateTime) != "2031-02-03 00:00:00" {
		t.Error(got, err)
	}
	for _, bad := range []string{"soon", "-1h", "2031-13-01", "0s"} {
		if _, err := parseExpiry(bad, now); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
