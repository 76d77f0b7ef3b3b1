package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite the expected messages in testdata")

// TestBadFiles holds the exact words of every complaint: they are what an operator reads at night.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := Parse("godwit.yaml", data)
			var problems Problems
			if cfg != nil || !errors.As(err, &problems) {
				t.Fatalf("got %v, %v, want problems alone", cfg, err)
			}
			for _, p := range problems {
				if p.What == "" || p.Advice == "" {
					t.Errorf("a problem says not what to do: %+v", p)
				}
			}
			got := err.Error() + "\n"
			golden := strings.TrimSuffix(file, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

const minimal = "hostname: mta1.example.com\nlisteners: []\n"

func TestEmptyFileHasDefaults(t *testing.T) {
	t.Parallel()
	cfg := parse(t, minimal)
	want := Default()
	want.Hostname, want.Delivery.Hello = "mta1.example.com", "mta1.example.com"
	want.Listeners = []Listener{}
	want.Events.Dir = "/var/lib/godwit/events"
	if diff := cmp.Diff(want, cfg, cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateComparable(netipPrefix)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(cfg.Advice()) > 0 {
		t.Errorf("defaults are advised against: %v", cfg.Advice())
	}
}

func TestHostnameOfMachine(t *testing.T) {
	t.Parallel()
	name, err := os.Hostname()
	if err != nil || !hostPattern.MatchString(name) {
		t.Skipf("needs a machine with a host name, has %q", name)
	}
	cfg := parse(t, "listeners: []\n")
	if cfg.Hostname != name || cfg.Origin("hostname").String() != "machine" {
		t.Errorf("hostname %q from %s", cfg.Hostname, cfg.Origin("hostname"))
	}
}

// TestLimitsAreInherited wants a listener to take what it does not set from the top level, also when that stands below
// it.
func TestLimitsAreInherited(t *testing.T) {
	t.Parallel()
	cfg := parse(t, `hostname: mta1.example.com
listeners:
  - name: relay
    address: "127.0.0.1:2525"
    trusted_networks: [127.0.0.1]
    limits: {sessions: 50, min_data_rate: 20}
limits:
  sessions: 100
  sessions_per_client: 10
  min_data_rate: 500
`)
	l := cfg.Listeners[0].Limits
	if l.Sessions != 50 || l.SessionsPerClient != 10 || l.MinDataRate != 20 || l.Recipients != 1000 {
		t.Errorf("limits %+v", l)
	}
	for key, want := range map[string]string{
		"listeners[0].limits.sessions":            "godwit.yaml:6",
		"listeners[0].limits.sessions_per_client": "limits.sessions_per_client",
		"limits.sessions":                         "godwit.yaml:8",
		"limits.recipients":                       "default",
		"listeners[0].trusted_networks":           "godwit.yaml:5",
		"events.dir":                              "data_dir",
	} {
		if got := cfg.Origin(key).String(); got != want {
			t.Errorf("origin of %s is %s, want %s", key, got, want)
		}
	}
	if got := cfg.Listeners[0].TrustedNetworks[0].String(); got != "127.0.0.1/32" {
		t.Errorf("a single address became %s", got)
	}
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	cfg := parse(t, `hostname: relay
listeners: []
http: {address: "192.0.2.1:80"}
delivery:
  retry: [10m, 5m]
  max_age: {default: 1h, bulk: 5m}
`)
	want := strings.TrimSpace(`
godwit.yaml:1:11: hostname: "relay" has no dot; many servers refuse mail from such a name; set it to the name that the outgoing address resolves to, such as mta1.example.com
godwit.yaml:3:17: http.address: metrics are readable for everyone who can reach it; listen on a private address
godwit.yaml:5:3: delivery.delay_notice_after: is not before delivery.max_age, so no notice is ever sent; lower it, or set delivery.delay_notices to never
godwit.yaml:5:16: delivery.retry[1]: 5m is shorter than the pause before it; let the pauses grow
godwit.yaml:6:32: delivery.max_age.bulk: 5m is over before the first retry; raise it, or shorten delivery.retry`)
	if diff := cmp.Diff(want, cfg.Advice().Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAliases(t *testing.T) {
	t.Parallel()
	cfg := parse(t, `hostname: mta1.example.com
listeners:
  - {name: a, address: "127.0.0.1:1", trusted_networks: &nets [10.0.0.0/8, "fd00::/8"]}
  - {name: b, address: "127.0.0.1:2", trusted_networks: *nets}
`)
	if len(cfg.Listeners[1].TrustedNetworks) != 2 {
		t.Errorf("alias gave %v", cfg.Listeners[1].TrustedNetworks)
	}
}

func TestRoutesAreNormalised(t *testing.T) {
	t.Parallel()
	cfg := parse(t, minimal+`routes:
  - {domains: ["*.BÜCHER.example", "Lan.Example.", "*"], hosts: [relay.example, "10.0.0.5:2525", "[2001:db8::1]:25", "2001:db8::2"]}
`)
	want := []string{"*.xn--bcher-kva.example", "lan.example", "*"}
	if diff := cmp.Diff(want, cfg.Routes[0].Domains); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if cfg.Routes[0].Protocol != "smtp" {
		t.Errorf("protocol %q", cfg.Routes[0].Protocol)
	}
	for i, want := range []string{"relay.example 25", "10.0.0.5 2525", "2001:db8::1 25", "2001:db8::2 25"} {
		host, port, err := ParseHost(cfg.Routes[0].Hosts[i], 25)
		if got := host + " " + text(reflect.ValueOf(port)); err != nil || got != want {
			t.Errorf("host %d is %s (%v), want %s", i, got, err, want)
		}
	}
}

// TestShowReadsBack wants what `config show` prints to be a file with the same values.
func TestShowReadsBack(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../../docs/godwit.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"example": string(example), "minimal": minimal} {
		cfg := parse(t, file)
		var out bytes.Buffer
		if err := cfg.Show(&out); err != nil {
			t.Fatal(err)
		}
		again, err := Parse("shown.yaml", out.Bytes())
		if err != nil {
			t.Fatalf("%s: %v in\n%s", name, err, out.String())
		}
		if changes := Diff(cfg, again); len(changes) > 0 {
			t.Errorf("%s: %+v", name, changes)
		}
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	before := parse(t, `hostname: mta1.example.com
listeners:
  - {name: a, address: "127.0.0.1:1", trusted_networks: [127.0.0.1]}
  - {name: b, address: "127.0.0.1:2", trusted_networks: [127.0.0.1]}
delivery: {max_age: {bulk: 1h}}
`)
	after := parse(t, `hostname: mta1.example.com
data_dir: /srv/godwit
listeners:
  - {name: b, address: "127.0.0.1:2", trusted_networks: [127.0.0.1, "::1"]}
  - {name: a, address: "127.0.0.1:1", trusted_networks: [127.0.0.1], limits: {hops: 60}}
`)
	want := []Change{
		{"data_dir", "/var/lib/godwit", "/srv/godwit", true},
		{"listeners[b].trusted_networks", `["127.0.0.1/32"]`, `["127.0.0.1/32", "::1/128"]`, false},
		{"listeners[a].limits.hops", "50", "60", false},
		{"events.dir", "/var/lib/godwit/events", "/srv/godwit/events", true},
		{"delivery.max_age.bulk", "1h", "", false},
	}
	changes := Diff(before, after)
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := NeedsRestart(changes); !cmp.Equal(got, []string{"data_dir", "events.dir"}) {
		t.Errorf("restart for %v", got)
	}
	if changes := Diff(before, before); changes != nil {
		t.Errorf("a configuration differs from itself: %v", changes)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, bytes.Repeat([]byte("# x\n"), MaxFileSize/4+1), 0o600); err != nil {
		t.Fatal(err)
	}
	var problems Problems
	if _, err := Load(big); !errors.As(err, &problems) || !strings.Contains(err.Error(), "larger than 4MiB") {
		t.Errorf("large file: %v", err)
	}
	cfg, err := Load("../../docs/godwit.example.yaml")
	if err != nil || cfg.File() != "../../docs/godwit.example.yaml" {
		t.Errorf("example: %v, %v", cfg, err)
	}
}

// TestKeysAreConsistent walks all keys: ranges and words can be read, hold the default, and lists of keys are complete.
func TestKeysAreConsistent(t *testing.T) {
	t.Parallel()
	var walk func(v reflect.Value, key string)
	walk = func(v reflect.Value, key string) {
		for _, f := range fields(v.Type()) {
			fv, path := v.Field(f.index), join(key, f.name)
			if low, high, ok := strings.Cut(f.tag.Get("range"), ".."); ok {
				checkRangeTag(t, path, fv, low, high)
			} else if fv.Kind() == reflect.Int || fv.Type() == reflect.TypeFor[Size]() || fv.Type() == reflect.TypeFor[time.Duration]() {
				t.Errorf("%s is not bounded", path)
			}
			switch {
			case isGroup(fv.Type()):
				walk(fv, path)
			case fv.Kind() == reflect.Slice && isGroup(fv.Type().Elem()):
				walk(reflect.New(fv.Type().Elem()).Elem(), path)
			}
		}
	}
	walk(reflect.ValueOf(*Default()), "")
}

func checkRangeTag(t *testing.T, path string, v reflect.Value, low, high string) {
	t.Helper()
	parse := parseInt
	elems := []reflect.Value{v}
	switch v.Kind() {
	case reflect.Slice:
		elems = elems[:0]
		for i := range v.Len() {
			elems = append(elems, v.Index(i))
		}
	case reflect.Map:
		elems = elems[:0]
		for _, k := range v.MapKeys() {
			elems = append(elems, v.MapIndex(k))
		}
	}
	switch typ := v.Type(); {
	case typ == reflect.TypeFor[Size]():
		parse = parseSize
	case typ.Kind() != reflect.Int:
		parse = parseDuration
	}
	from, err := parse(low)
	to, err2 := parse(high)
	if err != nil || err2 != nil || from >= to {
		t.Errorf("%s: range %s..%s: %v, %v", path, low, high, err, err2)
	}
	for _, e := range elems {
		if !e.IsZero() && (e.Int() < from || e.Int() > to) {
			t.Errorf("%s: default %v is out of its range", path, e)
		}
	}
}

func parse(t *testing.T, file string) *Config {
	t.Helper()
	cfg, err := Parse("godwit.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// FuzzParse wants every file to give a configuration or problems, and an accepted one to survive being shown and read
// back.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range append(files, "../../docs/godwit.example.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("fuzz.yaml", data)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 || err.Error() == "" {
				t.Fatalf("error without problems: %v", err)
			}
			return
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
			t.Fatalf("%+v", changes)
		}
	})
}
