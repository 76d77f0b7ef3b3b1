package config

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// TLSFloor says what is made of the experience that a mail host always had TLS.
type TLSFloor struct {
	// Whether hosts that had TLS on several days, and were never without, get a floor: if TLS is suddenly missing there, mail
	// waits before it goes in the clear.
	Learn bool `yaml:"learn"`

	// Different days with TLS until a host has a floor.
	Days int `yaml:"days" range:"1..365"`

	// How long mail waits for TLS to come back.
	Hold time.Duration `yaml:"hold" range:"1m..30d"`

	// What happens then: "clear" gives the floor up, with a line in the log and the audit log, and mail goes in the clear;
	// "wait" lets mail wait until it expires or an operator says "godwit tls floor reset".
	Then string `yaml:"then" enum:"clear,wait"`

	// How long after its last session over TLS a host is forgotten.
	Forget time.Duration `yaml:"forget" range:"1d..3660d"`
}

// Login is how this server logs in at the hosts of a route. It does so only where tls is verified or pinned.
type Login struct {
	// The user name. Empty: no login.
	Username string `yaml:"username"`

	// The file with the password, on one line.
	PasswordFile string `yaml:"password_file"`

	// The environment variable with the password, instead of a file.
	PasswordEnv string `yaml:"password_env"`
}

// DefaultTLS is the word of a route or tenant that says nothing of TLS.
const DefaultTLS = "default"

// DefaultTLSFloor returns what holds where the file says nothing.
func DefaultTLSFloor() TLSFloor {
	const day = 24 * time.Hour
	return TLSFloor{Learn: true, Days: 3, Hold: 4 * time.Hour, Then: "clear", Forget: 30 * day}
}

// ImplicitTLS reports whether sessions with the hosts of a route begin with TLS.
func (r *Route) ImplicitTLS() bool {
	switch r.TLSForm {
	case "implicit":
		return true
	case "starttls":
		return false
	}
	for _, h := range r.Hosts {
		if _, port, err := ParseHost(h, 25); err != nil || port != submissions {
			return false
		}
	}
	return len(r.Hosts) > 0 && r.TLS != "none"
}

// submissions is the port on which TLS begins with the connection (RFC 8314, 3.3).
const submissions = 465

// ParsePin reads the SHA-256 of a public key: "sha256:" and base64 or hexadecimal digits.
func ParsePin(s string) (pin [sha256.Size]byte, err error) {
	text, ok := strings.CutPrefix(s, "sha256:")
	if !ok {
		return pin, fmt.Errorf("%q lacks sha256: at its begin", s)
	}
	var raw []byte
	if len(text) == hex.EncodedLen(len(pin)) {
		raw, err = hex.DecodeString(text)
	} else {
		raw, err = base64.StdEncoding.DecodeString(text)
	}
	if err != nil || len(raw) != len(pin) {
		return pin, fmt.Errorf("%q is not 32 octets in base64 or hexadecimal digits", text)
	}
	return [sha256.Size]byte(raw), nil
}

var environmentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (d *decoder) checkTransport() {
	dl := &d.cfg.Delivery
	if dl.TLSFloor.Forget < time.Duration(dl.TLSFloor.Days)*24*time.Hour {
		d.wrong("delivery.tls_floor.forget", "is shorter than the days that make a floor", "raise it, or lower delivery.tls_floor.days")
	}
	given := d.origins["delivery.tls_floor.hold"].File != ""
	if given && dl.TLSFloor.Then == "clear" && dl.TLSFloor.Hold >= dl.MaxAge[DefaultStream] {
		d.advise("delivery.tls_floor.hold", "is not before delivery.max_age, so mail expires before it may go in the clear",
			"lower it, or set delivery.tls_floor.then to wait")
	}
	for i := range d.cfg.Routes {
		d.checkRouteTLS(fmt.Sprintf("routes[%d]", i), &d.cfg.Routes[i])
	}
}

func (d *decoder) checkRouteTLS(key string, r *Route) {
	for i, p := range r.TLSPins {
		if _, err := ParsePin(p); err != nil {
			d.wrong(fmt.Sprintf("%s.tls_pins[%d]", key, i), strconv.Quote(p)+" is not the SHA-256 of a public key",
				`write "sha256:" and 32 octets in base64; openssl x509 -pubkey and openssl pkey -pubin -outform der give the octets to hash`)
		}
	}
	proves := r.TLS == "verified" || r.TLS == "pinned"
	switch {
	case r.TLS == "pinned" && len(r.TLSPins) == 0:
		d.missing(key, "tls_pins", "is empty, and tls is pinned", `list the keys, such as ["sha256:..."]`)
	case r.TLS != "pinned" && len(r.TLSPins) > 0:
		d.wrong(key+".tls_pins", "is of no use unless tls is pinned", "set tls: pinned")
	}
	if r.TLSName != "" {
		ascii, err := smtp.DomainToASCII(r.TLSName)
		switch {
		case err != nil || !hostPattern.MatchString(ascii):
			d.wrong(key+".tls_name", strconv.Quote(r.TLSName)+" is not a host name", "write the name in the hosts' certificate")
		case r.TLS != "verified":
			d.wrong(key+".tls_name", "is of no use unless tls is verified", "set tls: verified")
		default:
			r.TLSName = ascii
		}
	}
	if r.TLSCAFile != "" && r.TLS != "verified" {
		d.wrong(key+".tls_ca_file", "is of no use unless tls is verified", "set tls: verified")
	}
	d.checkAbsolute(key+".tls_ca_file", r.TLSCAFile)
	if r.TLSForm == "implicit" && r.TLS == "none" {
		d.wrong(key+".tls_form", "is implicit, and tls is none", "set tls to what you want of the hosts")
	}
	l := &r.Login
	switch {
	case *l == Login{}:
	case l.Username == "":
		d.missing(key+".login", "username", "is missing", "write the user name, or take the login out")
	case l.PasswordFile == "" && l.PasswordEnv == "":
		d.missing(key+".login", "password_file", "is missing", "name the file that holds the password, or a variable by password_env")
	case l.PasswordFile != "" && l.PasswordEnv != "":
		d.wrong(key+".login.password_env", "is given beside password_file", "keep one of them")
	case !proves:
		d.wrong(key+".login", "would be shown to whoever answers at the hosts' addresses",
			"set tls: verified, or tls: pinned with the key of the hosts")
	}
	d.checkAbsolute(key+".login.password_file", l.PasswordFile)
	if l.PasswordEnv != "" && !environmentName.MatchString(l.PasswordEnv) {
		d.wrong(key+".login.password_env", strconv.Quote(l.PasswordEnv)+" is not the name of a variable", "write a name such as RELAY_PASSWORD")
	}
	if r.TLS == "verified" && r.TLSName == "" {
		for i, h := range r.Hosts {
			host, _, err := ParseHost(h, 25)
			if err != nil {
				continue
			}
			if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
				d.advise(fmt.Sprintf("%s.hosts[%d]", key, i), "is an address, which few certificates are for",
					"write a name, or say by tls_name whose certificate is expected")
			}
		}
	}
}

func (d *decoder) checkAbsolute(key, path string) {
	if path != "" && !filepath.IsAbs(path) {
		d.wrong(key, strconv.Quote(path)+" is not an absolute path", "write it from the root")
	}
}
