package config

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const door = `hostname: mta1.example.com
listeners:
  - {name: submission, address: "0.0.0.0:587", tls: starttls, auth: required, certificate: main}
  - {name: tls, address: "0.0.0.0:465", tls: implicit, auth: optional, relay_domains: [Lists.BÜCHER.example, "*.in.example"],
     auth_mechanisms: [PLAIN, SCRAM-SHA-256-PLUS, EXTERNAL, OAUTHBEARER], client_certificates: optional, client_ca: /etc/godwit/ca.pem,
     allow_networks: [10.0.0.0/8], deny_networks: [10.1.0.0/16], proxy_protocol: [192.0.2.1], bandwidth: 10MB}
  - {name: local, address: "127.0.0.1:2525", auth: optional, tls: off, insecure_auth: true, trusted_networks: [127.0.0.1]}
  - {name: lab, address: "127.0.0.1:2526", trusted_networks: [0.0.0.0/0], open_relay: true, headers: submission}
tls:
  certificates: [{name: main, certificate: /etc/godwit/cert.pem, key: /etc/godwit/key.pem}]
tenants:
  - {id: shop, name: The Shop, domains: [Shop.example, "*.shop.example"], check_trusted: true, quota: {messages_per_hour: 100}}
  - {id: news}
quotas:
  tenant: {messages_per_day: 5000, over_day: refuse}
  client: {recipients_per_minute: 60}
auth:
  oauth: [{name: corp, issuer: "https://login.example.com", audience: godwit}]
`

func TestDoor(t *testing.T) {
	t.Parallel()
	cfg := parse(t, door)
	if got := cfg.Listeners[1].RelayDomains; !cmp.Equal(got, []string{"lists.xn--bcher-kva.example", "*.in.example"}) {
		t.Errorf("relay domains %v", got)
	}
	if got := cfg.Tenants[0].Domains; !cmp.Equal(got, []string{"shop.example", "*.shop.example"}) {
		t.Errorf("domains %v", got)
	}
	// A tenant takes what it does not set from quotas.tenant, which stands below it.
	if q := cfg.Tenants[0].Quota; q.MessagesPerHour != 100 || q.MessagesPerDay != 5000 || q.OverDay != "refuse" {
		t.Errorf("quota %+v", q)
	}
	for key, want := range map[string]string{
		"tenants[0].quota.messages_per_hour": "godwit.yaml:12", "tenants[1].quota.messages_per_day": "quotas.tenant.messages_per_day",
		"quotas.tenant.messages_per_day": "godwit.yaml:15", "quotas.client.bytes_per_day": "default", "listeners[2].tls": "godwit.yaml:7",
	} {
		if got := cfg.Origin(key).String(); got != want {
			t.Errorf("origin of %s is %s, want %s", key, got, want)
		}
	}
	if cfg.Listeners[2].TLS != "off" || cfg.Listeners[3].Auth != "off" || cfg.Auth.OAuth[0].LoginClaim != "email" {
		t.Errorf("defaults %+v, %+v", cfg.Listeners[2], cfg.Auth)
	}
	if advice := cfg.Advice(); len(advice) != 1 || advice[0].Key != "listeners[3].trusted_networks[0]" {
		t.Errorf("advice %v", advice)
	}
	var out bytes.Buffer
	if err := cfg.Show(&out); err != nil {
		t.Fatal(err)
	}
	again, err := Parse("shown.yaml", out.Bytes())
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	if changes := Diff(cfg, again); len(changes) > 0 {
		t.Errorf("%+v", changes)
	}
}

func TestDoorAdvice(t *testing.T) {
	t.Parallel()
	cfg := parse(t, `hostname: mta1.example.com
listeners:
  - {name: a, address: "127.0.0.1:1", trusted_networks: [127.0.0.1], proxy_protocol: [192.0.2.1], allow_networks: [10.1.0.0/16], deny_networks: [10.0.0.0/8]}
quotas: {client: {messages_per_minute: 5, messages_per_hour: 4, messages_per_day: 3}}
`)
	want := `godwit.yaml:3:86: listeners[0].proxy_protocol: clients that a proxy names are never trusted by their address, so nobody behind it may send; set auth: required
godwit.yaml:3:116: listeners[0].allow_networks[0]: 10.1.0.0/16 lies within deny_networks, which go first; remove it from one of them
godwit.yaml:4:40: quotas.client.messages_per_minute: is above the limit of an hour, so it never counts; lower it, or leave it out
godwit.yaml:4:83: quotas.client.messages_per_day: is below the limit of an hour or minute, which never counts; raise it, or leave the other out`
	if diff := cmp.Diff(want, cfg.Advice().Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestVerifyMode: mail from outside is marked where it is taken, unless the file says otherwise.
func TestVerifyMode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		verify  string
		domains []string
		want    string
	}{
		{"", nil, "off"}, {"auto", nil, "off"}, {"auto", []string{"example.com"}, "mark"}, {"", []string{"example.com"}, "mark"},
		{"off", []string{"example.com"}, "off"}, {"report", []string{"example.com"}, "report"}, {"reject", nil, "reject"},
	} {
		l := Listener{Verify: c.verify, RelayDomains: c.domains}
		if got := l.VerifyMode(); got != c.want {
			t.Errorf("%q with %v: %s, want %s", c.verify, c.domains, got, c.want)
		}
	}
}
