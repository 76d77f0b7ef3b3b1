package smtpclient_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpclient"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// TestRandomPeers holds the client's word against the peer's under random scripts, in fake time: what the client calls
// delivered the peer took once, what it calls refused or unsent the peer never took, and every recipient has a result.
func TestRandomPeers(t *testing.T) {
	t.Parallel()
	seeds := 1000
	if testing.Short() {
		seeds = 100
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 7))
			p := pipedBy(t, randomScript(r), rand.NewPCG(uint64(seed), 8))
			way := ways[r.IntN(len(ways))].o
			way.LMTP = p.script.LMTP
			var all []*smtpclient.Transaction
			var c *smtpclient.Conn
			for i := range 4 {
				if c != nil && !(c.Reusable() && c.Alive()) {
					_ = c.Close()
					c = nil
				}
				if c == nil {
					var err error
					if c, err = p.try(way); err != nil {
						continue
					}
				}
				tx := message(fmt.Sprintf("s%d-", i), 1+r.IntN(5), strings.Repeat(letter, 1+r.IntN(20)))
				err := c.Send(t.Context(), tx)
				if err == nil && strings.Contains(statuses(tx), "un") { // unsent or unknown
					t.Errorf("seed %d: %s without an error", seed, statuses(tx))
				}
				if err != nil && c.Reusable() {
					t.Errorf("seed %d: reusable after %v", seed, err)
				}
				all = append(all, tx)
			}
			if c != nil {
				_ = c.Quit(t.Context()) // the peer may not answer
			}
			p.judge(t, all...)
			if t.Failed() {
				t.Fatalf("seed %d, script %+v", seed, p.script)
			}
		})
	}
}

// randomScript misbehaves now and then, but never lies about what it took.
func randomScript(r *rand.Rand) smtptest.Script {
	s := smtptest.Script{LMTP: r.IntN(6) == 0}
	for _, keyword := range []string{"PIPELINING", "CHUNKING", "SIZE", "8BITMIME"} {
		if r.IntN(4) == 0 {
			s.Without = append(s.Without, keyword)
		}
	}
	if r.IntN(4) == 0 {
		s.Recipients, s.Announce = 1+r.IntN(3), r.IntN(2) == 0
	}
	if r.IntN(5) == 0 {
		s.SessionMessages = 1 + r.IntN(3)
	}
	points := []smtptest.Point{
		smtptest.AtBanner, smtptest.AtEhlo, smtptest.AtMail, smtptest.AtRcpt, smtptest.AtRcpt, smtptest.AtData, smtptest.AtBody,
		smtptest.AtFinal, smtptest.AtFinal, smtptest.AtRset, smtptest.AtQuit,
	}
	refusals := []string{"421 4.3.2 bye", "450 4.7.1 later", "452 4.5.3 too many", "550 5.1.1 no", "554 no", "250-4.5.3 odd\n250 fine"}
	for range 1 + r.IntN(3) {
		rule := smtptest.Rule{At: points[r.IntN(len(points))], Share: 0.1 + 0.4*r.Float64()}
		if r.IntN(3) == 0 {
			rule.Delay = smtptest.Duration(time.Duration(r.IntN(12)) * time.Minute)
		}
		switch r.IntN(6) {
		case 0, 1:
			if rule.At != smtptest.AtBanner && rule.At != smtptest.AtBody && rule.At != smtptest.AtRset {
				rule.Reply = refusals[r.IntN(len(refusals))]
			}
			if rule.At == smtptest.AtData && rule.Reply[:1] == "2" {
				rule.Reply = ""
			}
		case 2:
			rule.Drop, rule.After = smtptest.DropFIN, r.IntN(2) == 0
		case 3:
			rule.Drop, rule.After = smtptest.DropRST, r.IntN(2) == 0
		case 4:
			rule.Stall = true
		case 5:
			rule.Cut = 1 + r.IntN(8)
		}
		rule.Percent = r.IntN(100)
		s.Rules = append(s.Rules, rule)
	}
	return s
}

// FuzzPeer lets a peer say anything at all, at once: the session must end, with a result for every recipient.
func FuzzPeer(f *testing.F) {
	ehlo := "220 hi\r\n250-x\r\n250-PIPELINING\r\n250 SIZE\r\n"
	for _, s := range []string{
		"", "220", "220 hi\r\n500 what\r\n250 hi\r\n", ehlo + "250 ok\r\n250 ok\r\n354 go\r\n250 done\r\n",
		ehlo + "250 ok\r\n550 no\r\n354 go\r\n250 done\r\n", ehlo + "421 bye\r\n",
		"220 a\r\n250 b\r\n250 c\r\n250 d\r\n354 e\r\n250 f\r\n221 g\r\n", strings.Repeat("250-", 300),
	} {
		f.Add([]byte(s), byte(3))
	}
	f.Fuzz(func(t *testing.T, says []byte, mode byte) {
		client, server := smtptest.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			// One reply for each piece of what the client says, so that not all of it comes unasked.
			buffer := make([]byte, 64<<10)
			for line := range bytes.Lines(says) {
				if _, err := server.Write(line); err != nil {
					break
				}
				if mode&4 == 0 {
					_ = server.SetReadDeadline(time.Now().Add(time.Millisecond))
					_, _ = server.Read(buffer)
				}
			}
			_ = server.(interface{ CloseWrite() error }).CloseWrite()
			_ = server.SetReadDeadline(time.Time{})
			_, _ = io.Copy(io.Discard, server)
		}()
		c := smtpclient.New(client, smtpclient.Options{NoPipelining: mode&1 != 0, NoChunking: mode&2 != 0, LMTP: mode&8 != 0})
		if err := c.Start(t.Context()); err == nil {
			for c.Reusable() && c.Transactions() < 3 {
				tx := message("x", 2, letter)
				err := c.Send(t.Context(), tx)
				for _, r := range tx.Result.Recipients {
					switch r.Status {
					case smtpclient.Delivered, smtpclient.Refused:
						if r.Reply.IsZero() || r.Reply.Positive() != (r.Status == smtpclient.Delivered) {
							t.Errorf("%+v", r)
						}
					case smtpclient.Unsent, smtpclient.Unknown:
						if r.Err == nil || err == nil || c.Reusable() {
							t.Errorf("%+v, error %v", r, err)
						}
					}
				}
			}
		}
		_ = c.Close()
		<-done
	})
}

// FuzzBody sends any octets by DATA and by BDAT, in any pieces: the peer has them back to the last one, their end
// completed to a line.
func FuzzBody(f *testing.F) {
	for _, s := range []string{"", ".", "\r\n", ".\r\n", "\r\n.\r\n", "a\r\n..\r\n.\r\nQUIT\r\n", "x", "\r", "a\r\n.", "\r\n.\r\n.\r\n.", "\x00"} {
		f.Add([]byte(s), 3, true)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int, data bool) {
		// Bodies have CRLF line ends only; what has others never gets this far.
		in = bytes.ReplaceAll(in, []byte("\r"), nil)
		in = bytes.ReplaceAll(in, []byte("\n"), []byte("\r\n"))
		if len(in) > 100_000 {
			return
		}
		body := smtp.NewBody()
		cut = max(1, min(cut, len(in)))
		body.Prepend(bytes.Clone(in[:min(cut, len(in))]))
		front := smtp.BodyOf(in)
		body.DotLine, body.EightBit = front.DotLine, front.EightBit
		if len(in) > cut {
			body.Append(in[cut:])
			body.DotLine, body.EightBit = front.DotLine, front.EightBit
		}
		p := piped(t, smtptest.Script{})
		c := p.open(t, smtpclient.Options{NoChunking: data})
		tx := message("x", 1, "")
		tx.Body = body
		if err := c.Send(t.Context(), tx); err != nil || statuses(tx) != "delivered 250 final" {
			t.Fatalf("%s, %v", statuses(tx), err)
		}
		p.wait()
		want := in
		if len(want) > 0 && !bytes.HasSuffix(want, []byte("\r\n")) {
			want = append(bytes.Clone(want), "\r\n"...)
		}
		if len(p.ledger.messages) != 1 || !bytes.Equal(p.ledger.messages[0].Body, want) || p.Counters().BadCommands != 0 {
			t.Errorf("%d messages, got %q, want %q", len(p.ledger.messages), p.ledger.messages[0].Body, want)
		}
	})
}
