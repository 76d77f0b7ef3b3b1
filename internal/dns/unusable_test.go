package dns_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/internal/dns"
)

func TestD2Unusable(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{ // a part of the reason; empty: usable
		"127.0.0.1": "loopback", "127.255.255.254": "loopback", "0.0.0.0": "this network", "0.1.2.3": "this network",
		"10.0.0.1": "private", "10.255.255.255": "private", "172.16.0.1": "private", "172.31.255.255": "private",
		"192.168.0.1": "private", "169.254.169.254": "link-local", "100.64.0.1": "carrier-grade", "100.127.255.255": "carrier-grade",
		"224.0.0.1": "multicast", "239.255.255.255": "multicast", "240.0.0.1": "reserved", "255.255.255.255": "broadcast",
		"192.0.0.8": "protocol", "192.0.2.1": "documentation", "198.51.100.7": "documentation", "203.0.113.9": "documentation",
		"198.18.0.1": "benchmarking", "198.19.255.255": "benchmarking", "192.88.99.1": "6to4",

		"9.255.255.255": "", "11.0.0.0": "", "100.63.255.255": "", "100.128.0.0": "", "126.255.255.255": "", "128.0.0.0": "",
		"169.253.255.255": "", "172.15.255.255": "", "172.32.0.0": "", "192.167.255.255": "", "192.169.0.0": "", "198.17.255.255": "",
		"198.20.0.0": "", "223.255.255.255": "", "8.8.8.8": "",

		"::": "unspecified", "::1": "loopback", "::2": "global unicast", "::127.0.0.1": "global unicast",
		"::ffff:127.0.0.1": "IPv4-mapped", "::ffff:8.8.8.8": "IPv4-mapped",
		"64:ff9b::7f00:1": "NAT64 of loopback", "64:ff9b::a00:1": "NAT64 of private", "64:ff9b::a9fe:a9fe": "NAT64 of link-local",
		"64:ff9b::808:808": "", "64:ff9b:1::1": "local NAT64", "64:ff9b:0:0:1::": "global unicast",
		"2002:7f00:1::1": "6to4 of loopback", "2002:a00:1::": "6to4 of private", "2002:808:808::1": "",
		"fe80::1": "link-local", "febf::1": "link-local", "fe80::1%eth0": "zone", "2001:4860::1%eth0": "zone", "fec0::1": "site-local",
		"fc00::1": "unique local", "fdff::1": "unique local", "ff02::1": "multicast", "100::1": "discard",
		"2001:db8::1": "documentation", "3fff::1": "documentation", "2001::1": "protocol", "2001:1ff::1": "protocol", "5f00::1": "segment",
		"4000::1": "global unicast", "1fff::1": "global unicast",
		"2001:200::1": "", "2001:4860:4860::8888": "", "2a00:1450::1": "", "3ffe::1": "",
	} {
		reason, bad := dns.Unusable(netip.MustParseAddr(addr))
		if bad != (want != "") || !strings.Contains(reason, want) || bad == (reason == "") {
			t.Errorf("%s: %q, %v; want %q", addr, reason, bad, want)
		}
	}
	if reason, bad := dns.Unusable(netip.Addr{}); !bad || reason == "" {
		t.Error("no address at all is usable")
	}
}

func BenchmarkUnusable(b *testing.B) {
	a := netip.MustParseAddr("2a00:1450:4001::1a")
	b.ReportAllocs()
	for b.Loop() {
		if _, bad := dns.Unusable(a); bad {
			b.Fatal("refused")
		}
	}
}
