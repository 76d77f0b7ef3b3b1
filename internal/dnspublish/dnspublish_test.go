package dnspublish

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/cloudflare"
	"github.com/miekg/dns"
)

const (
	tsigName   = "update.test."
	tsigSecret = "c2VjcmV0IG9mIHRoZSB1cGRhdGVzIG9mIHRlc3Q="
)

// nameserver takes updates of TXT records that are signed (RFC 2136, RFC 8945).
type nameserver struct {
	mu   sync.Mutex
	txt  map[string][]string // strings of each record, by name
	zone string              // of the last update
}

func (n *nameserver) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(r)
	defer func() { _ = w.WriteMsg(m) }()
	if r.Opcode != dns.OpcodeUpdate || r.IsTsig() == nil || w.TsigStatus() != nil {
		m.Rcode = dns.RcodeNotAuth
		return
	}
	m.SetTsig(tsigName, dns.HmacSHA256, 300, time.Now().Unix())
	n.zone = r.Question[0].Name
	for _, rr := range r.Ns {
		name := rr.Header().Name
		switch rr.Header().Class {
		case dns.ClassINET:
			n.txt[name] = append(n.txt[name], rr.(*dns.TXT).Txt...)
		case dns.ClassANY:
			delete(n.txt, name)
		case dns.ClassNONE:
			if slices.Equal(n.txt[name], rr.(*dns.TXT).Txt) {
				delete(n.txt, name)
			}
		}
	}
}

func (n *nameserver) get(name string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.txt[name]
}

func TestUpdates(t *testing.T) {
	t.Parallel()
	n := &nameserver{txt: make(map[string][]string)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{Listener: l, Handler: n, TsigSecret: map[string]string{tsigName: tsigSecret}, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction {
		return dns.MsgAccept
	}}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.ActivateAndServe() })
	t.Cleanup(func() { _ = s.Shutdown(); wg.Wait() })
	access := Access{Provider: "rfc2136", Server: l.Addr().String(), KeyName: tsigName, Secret: tsigSecret}
	p, err := New(Options{Access: access, Zones: []string{"example.com", "Sub.Example.com.", "xn--bcher-kva.example"}})
	if err != nil {
		t.Fatal(err)
	}
	const name = "s._domainkey.sub.example.com"
	long := "v=DKIM1; k=rsa; p=" + strings.Repeat("A", 300)
	for range 2 { // twice is as once
		if err := p.SetTXT(t.Context(), name, long); err != nil {
			t.Fatal(err)
		}
		if got := n.get(name + "."); len(got) != 2 || len(got[0]) != 255 || strings.Join(got, "") != long {
			t.Errorf("%q", got)
		}
	}
	if n.zone != "sub.example.com." {
		t.Errorf("the zone %s was updated", n.zone)
	}
	if err := p.SetTXT(t.Context(), name, "v=DKIM1; k=rsa; p="); err != nil || !slices.Equal(n.get(name+"."), []string{"v=DKIM1; k=rsa; p="}) {
		t.Errorf("%q %v", n.get(name+"."), err)
	}
	for range 2 {
		if err := p.RemoveTXT(t.Context(), name); err != nil || n.get(name+".") != nil {
			t.Errorf("%q %v", n.get(name+"."), err)
		}
	}
	for name, covered := range map[string]bool{
		"example.com": true, "a.b.example.com": true, "notexample.com": false, "com": false, "s._domainkey.xn--bcher-kva.example": true, "": false,
	} {
		if p.Covers(name) != covered {
			t.Errorf("%s: %v", name, !covered)
		}
	}
	if err := p.SetTXT(t.Context(), "s._domainkey.other.example", "x"); err == nil {
		t.Error("a name outside all zones was written")
	}
	if err := p.SetTXT(t.Context(), name, "a\"\n$INCLUDE /etc/passwd"); err == nil || n.get(name+".") != nil {
		t.Error("a text that ends its record was written")
	}
	access.Secret = "b3RoZXI="
	if p, err = New(Options{Access: access, Zones: []string{"example.com"}}); err != nil {
		t.Fatal(err)
	}
	if err := p.SetTXT(t.Context(), name, "x"); err == nil || strings.Contains(err.Error(), access.Secret) {
		t.Errorf("with another key: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	access.Server = silent.Addr().String()
	if p, err = New(Options{Access: access, Zones: []string{"example.com"}}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := p.SetTXT(ctx, name, "x"); err == nil || time.Since(begin) > 5*time.Second {
		t.Errorf("a silent server: %v after %v", err, time.Since(begin))
	}
}

// cloud is the part of Cloudflare's interface that is used here.
type cloud struct {
	t       *testing.T
	mu      sync.Mutex
	records map[string]map[string]any // by id
	next    int
}

func (c *cloud) Do(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer token" {
		return answer(403, `{"success":false,"errors":[{"code":9109,"message":"Invalid access token"}]}`), nil
	}
	path := strings.TrimPrefix(r.URL.Path, "/client/v4/zones")
	q := r.URL.Query()
	switch {
	case path == "" && q.Get("name") == "example.com":
		return answer(200, `{"success":true,"result":[{"id":"z1","name":"example.com"}]}`), nil
	case path == "/z1/dns_records" && r.Method == http.MethodGet:
		list := []map[string]any{}
		for _, record := range c.records {
			if record["name"] == q.Get("name") && strings.Contains(record["content"].(string), q.Get("content.contains")) {
				list = append(list, record)
			}
		}
		text, _ := json.Marshal(list)
		return answer(200, fmt.Sprintf(`{"success":true,"result":%s,"result_info":{"total_count":%d,"per_page":100}}`, text, len(list))), nil
	case strings.HasPrefix(path, "/z1/dns_records") && (r.Method == http.MethodPost || r.Method == http.MethodPatch || r.Method == http.MethodPut):
		var record map[string]any
		if err := json.NewDecoder(r.Body).Decode(&record); err != nil {
			c.t.Error(err)
		}
		id := strings.Trim(strings.TrimPrefix(path, "/z1/dns_records"), "/")
		if id == "" {
			c.next++
			id = fmt.Sprint("r", c.next)
		}
		name, _ := record["name"].(string)
		if !strings.HasSuffix(name, "example.com") {
			record["name"] = name + ".example.com"
		}
		record["id"] = id
		c.records[id] = record
		text, _ := json.Marshal(record)
		return answer(200, fmt.Sprintf(`{"success":true,"result":%s}`, text)), nil
	case r.Method == http.MethodDelete:
		delete(c.records, strings.TrimPrefix(path, "/z1/dns_records/"))
		return answer(200, `{"success":true,"result":{"id":"x"}}`), nil
	}
	return answer(404, `{"success":false,"errors":[{"code":7003,"message":"not found"}]}`), nil
}

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: make(http.Header)}
}

func TestCloudflare(t *testing.T) {
	t.Parallel()
	p, err := New(Options{Access: Access{Provider: "cloudflare", Secret: "token"}, Zones: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{t: t, records: make(map[string]map[string]any)}
	p.provider.(*cloudflare.Provider).HTTPClient = c
	const name = "s._domainkey.example.com"
	long := "v=DKIM1; k=rsa; p=" + strings.Repeat("A", 300)
	for _, text := range []string{long, long, "v=DKIM1; k=rsa; p="} {
		if err := p.SetTXT(t.Context(), name, text); err != nil {
			t.Fatal(err)
		}
		if len(c.records) != 1 {
			t.Errorf("%d records", len(c.records))
		}
		for _, r := range c.records {
			if r["content"] != `"`+text+`"` || r["type"] != "TXT" {
				t.Errorf("%v", r)
			}
		}
	}
	for range 2 {
		if err := p.RemoveTXT(t.Context(), name); err != nil || len(c.records) != 0 {
			t.Errorf("%v %v", c.records, err)
		}
	}
	p.provider.(*cloudflare.Provider).APIToken = "secret-token"
	p.secret = "secret-token"
	if err := p.SetTXT(t.Context(), name, "x"); err == nil || strings.Contains(err.Error(), "secret-token") || !strings.Contains(err.Error(), "Invalid access token") {
		t.Errorf("%v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	good := Access{Provider: "rfc2136", Server: "192.0.2.53:53", KeyName: "k", Secret: "x"}
	for _, tt := range []struct {
		name string
		o    Options
		ok   bool
	}{
		{"good", Options{Access: good, Zones: []string{"example.com"}}, true},
		{"no zones", Options{Access: good}, false},
		{"a zone that is none", Options{Access: good, Zones: []string{"exa mple"}}, false},
		{"no server", Options{Access: Access{Provider: "rfc2136", KeyName: "k", Secret: "x"}, Zones: []string{"example.com"}}, false},
		{"no port", Options{Access: Access{Provider: "rfc2136", Server: "192.0.2.53", KeyName: "k", Secret: "x"}, Zones: []string{"example.com"}}, false},
		{"no token", Options{Access: Access{Provider: "cloudflare"}, Zones: []string{"example.com"}}, false},
		{"nobody", Options{Access: Access{Provider: "route53", Secret: "x"}, Zones: []string{"example.com"}}, false},
		{"a short time", Options{Access: good, Zones: []string{"example.com"}, TTL: time.Millisecond}, false},
	} {
		if _, err := New(tt.o); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := good.Challenger(); err != nil {
		t.Error(err)
	}
}
