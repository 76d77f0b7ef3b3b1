package crash

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// A submitter must know exactly what it knows: whether the end of its message has left, and whether it was answered.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	reply := func(at smtptest.Point, text string) []smtptest.Rule { return []smtptest.Rule{{At: at, Reply: text}} }
	drop := func(at smtptest.Point) []smtptest.Rule { return []smtptest.Rule{{At: at, Drop: smtptest.DropFIN}} }
	for _, c := range []struct {
		name  string
		rules []smtptest.Rule
		fate  fate
		want  outcome
		comes bool // the sink has the whole message
		ends  bool // the session is over
	}{
		{"taken", nil, finish, accepted, true, false},
		{"refused at the end", reply(smtptest.AtFinal, "451 4.3.0 no"), finish, refused, true, false},
		{"no reply", drop(smtptest.AtFinal), finish, unknown, true, true},
		{"taken back", nil, reset, aborted, false, false},
		{"broken off", nil, breakOff, aborted, false, false},
		{"recipient dropped", reply(smtptest.AtRcpt, "550 5.1.1 no"), reset, refused, false, false},
	} {
		for _, mode := range []struct {
			name      string
			chunks    int
			pipelined bool
		}{{"DATA", 0, false}, {"DATA at once", 0, true}, {"BDAT", 3, false}, {"one BDAT at once", 1, true}} {
			t.Run(c.name+", "+mode.name, func(t *testing.T) {
				t.Parallel()
				p := newTestShaper().plan()
				p.fate, p.chunks, p.pipelined, p.bad = c.fate, mode.chunks, mode.pipelined, nil
				end, got, err := submitTo(t, p, c.rules)
				// What is in flight behind a refused envelope cannot be sorted out.
				ends := c.ends || c.want == refused && mode.pipelined && c.fate == reset
				if end.Outcome != c.want || (err != nil) != ends {
					t.Errorf("outcome %q, error %v; want %q", end.Outcome, err, c.want)
				}
				if (len(got) == 1) != c.comes || len(got) > 1 {
					t.Fatalf("the sink has %d messages", len(got))
				}
				if c.comes {
					sum := sha256.Sum256(got[0].Body)
					if hex.EncodeToString(sum[:]) != p.Hash || !slices.Equal(got[0].Recipients, p.To) {
						t.Errorf("%s: not what was planned came", p.Mode)
					}
				}
			})
		}
	}
}

func newTestShaper() *shaper {
	return &shaper{
		rand: rand.New(rand.NewPCG(7, 7)), name: "test", text: newText(rand.NewPCG(7, 8)), largest: largest, sites: sites,
	}
}

// submitTo carries a plan out against a sink, and returns what came there.
func submitTo(t *testing.T, p *plan, rules []smtptest.Rule) (submission, []*smtptest.Received, error) {
	t.Helper()
	var got []*smtptest.Received
	sink, err := smtptest.NewSink(smtptest.SinkOptions{
		Script: smtptest.Script{Rules: rules}, KeepBody: true,
		OnMessage: func(r *smtptest.Received) { got = append(got, r) },
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var served sync.WaitGroup
	served.Go(func() {
		if err := sink.Run(ctx, l); err != nil {
			t.Error(err)
		}
	})
	c, err := dial(ctx, l.Addr().String(), "test.example")
	if err != nil {
		t.Fatal(err)
	}
	end, submitErr := p.submit(c)
	if err := c.nc.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	served.Wait()
	return end, got, submitErr
}

// Plans cover what the campaign is for, and a seed gives the same ones again.
func TestPlans(t *testing.T) {
	t.Parallel()
	a, b := newTestShaper(), newTestShaper()
	fates := make(map[fate]int)
	most, least, biggest := 0, largest, 0
	for range 2000 {
		p, same := a.plan(), b.plan()
		if p.Hash != same.Hash || p.Mode != same.Mode || !slices.Equal(p.To, same.To) {
			t.Fatalf("the same seed gives %s and %s", p.Mode, same.Mode)
		}
		fates[p.fate]++
		most = max(most, len(p.To))
		if p.fate != oversize {
			least, biggest = min(least, p.Size), max(biggest, p.Size)
		}
		if p.Doomed != (p.Size > messageLimit || strings.Count(string(p.content), "Received: ") > 50) {
			t.Errorf("%s, %d octets: doomed is %v", p.Mode, p.Size, p.Doomed)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(string(p.content), "\r\n"), "\r\n") {
			if strings.ContainsAny(line, "\r\n") || len(line) > 998 {
				t.Fatalf("%s has a bad line of %d octets", p.Mode, len(line))
			}
		}
	}
	if len(fates) != int(loop)+1 || most < 45 || least > 1200 || biggest < 180<<10 {
		t.Errorf("fates %v, up to %d recipients, %d to %d octets", fates, most, least, biggest)
	}
}

func TestUntrace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in, content string
		traced      bool
	}{
		{"Received: from a\r\n\tby b;\r\n\tdate\r\nMessage-ID: <x>\r\n", "Message-ID: <x>\r\n", true},
		{"Received: from a\r\nReceived: from b\r\n", "Received: from b\r\n", true},
		{"Message-ID: <x>\r\n", "Message-ID: <x>\r\n", false},
		{"Received: cut", "Received: cut", false},
		{"", "", false},
	} {
		if content, traced := untrace([]byte(c.in)); string(content) != c.content || traced != c.traced {
			t.Errorf("%q: %q, %v", c.in, content, traced)
		}
	}
}

func TestReadReport(t *testing.T) {
	t.Parallel()
	about, failed := readReport([]byte("Message-ID: <its-own>\r\n\r\nFinal-Recipient: rfc822;a@b.example\r\n" +
		"Final-Recipient: rfc822; c@d.example\r\n\r\nMessage-ID: <3.4@home.example>\r\nSubject: x\r\n"))
	if about != "3.4@home.example" || !slices.Equal(failed, []string{"a@b.example", "c@d.example"}) {
		t.Errorf("about %q, failed %q", about, failed)
	}
}
