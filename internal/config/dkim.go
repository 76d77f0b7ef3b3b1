package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/godwit-mta/godwit/smtp"
)

// DKIM says what signs mail, beyond the keys that "godwit dkim" makes.
type DKIM struct {
	// Keys that you keep yourself. Of several for one domain with one algorithm the first one signs whose record is in DNS.
	Keys []DKIMKey `yaml:"keys"`

	// A domain of yours that signs all mail besides the author's own, for providers that send complaints by signature. It
	// needs a key without a tenant. Empty: none.
	Operator string `yaml:"operator"`

	// Whether mail is refused whose author's domain has no key here that may sign.
	Required bool `yaml:"required"`

	// Whether a key signs only while DNS shows its record. Without it mail may be signed in vain, which some receivers
	// count against it.
	RequireRecord bool `yaml:"require_record"`

	// What new keys are made for; mail gets a signature by each. "rsa" is what everybody verifies.
	Algorithms []string `yaml:"algorithms" enum:"rsa,ed25519"`

	// Bits of new RSA keys.
	RSABits int `yaml:"rsa_bits" range:"2048..4096"`

	// How long a signature is good for (x=), which limits how long mail can be replayed. It must outlast delivery.max_age.
	// 0: for ever.
	Expire time.Duration `yaml:"expire" range:"0..366d"`

	// How long a key signs before a new one takes its place. Without publish, "godwit doctor list" then says which record to put
	// into DNS. 0: keys are replaced by hand.
	RotateEvery time.Duration `yaml:"rotate_every" range:"0..3660d"`

	// How long the record of a key must have been seen everywhere before it takes another one's place.
	ActivateAfter time.Duration `yaml:"activate_after" range:"1s..7d"`

	// How long a key's record stays in DNS after it signed last. 0: the longest of delivery.max_age and two days, and not less
	// than expire.
	RetireAfter time.Duration `yaml:"retire_after" range:"0..366d"`

	// Name servers where records are looked for besides dns.servers, such as those of the zone: "192.0.2.53". A key is used when
	// all of them have its record.
	CheckAt []string `yaml:"check_at" restart:"yes"`

	// Header fields that are signed besides the usual ones.
	Headers []string `yaml:"headers"`

	// Header fields of which nobody may add one to signed mail, besides the usual ones.
	Oversign []string `yaml:"oversign"`

	// Who writes records into DNS.
	Publish DKIMPublish `yaml:"publish"`
}

// DKIMKey is a key that the operator keeps: a file, or a command that signs.
type DKIMKey struct {
	// The domain that signs (d=).
	Domain string `yaml:"domain"`

	// The selector (s=).
	Selector string `yaml:"selector"`

	// The tenant whose mail it signs. Empty: that of everybody whose domain it is.
	Tenant string `yaml:"tenant"`

	// The file with the private key (PEM), readable for the server alone.
	File string `yaml:"file"`

	// A command that signs, run without a shell for each signature: its name, then its arguments. It reads a SHA-256 hash (32
	// octets) and writes the signature.
	Command []string `yaml:"command"`

	// The file with the public key (PEM), beside command.
	PublicKey string `yaml:"public_key"`

	// How long the command may take for one signature.
	Timeout time.Duration `yaml:"timeout" range:"10ms..1m"`
}

// DKIMPublish says who writes records into DNS.
type DKIMPublish struct {
	// "rfc2136" updates a name server of yours, "cloudflare" uses the interface of Cloudflare, "off" leaves it to you.
	Provider string `yaml:"provider" enum:"off,rfc2136,cloudflare" restart:"yes"`

	// The zones that may be written, such as [example.com]. Records of other domains are left to you.
	Zones []string `yaml:"zones" restart:"yes"`

	// For rfc2136: the name server that takes updates, such as "192.0.2.53:53". Records are looked for there too.
	Server string `yaml:"server" restart:"yes"`

	// For rfc2136: the name of the TSIG key.
	KeyName string `yaml:"key_name" restart:"yes"`

	// For rfc2136: the algorithm of the TSIG key.
	KeyAlgorithm string `yaml:"key_algorithm" enum:"hmac-sha256,hmac-sha384,hmac-sha512" restart:"yes"`

	// The file with the TSIG key (base64) or the API token.
	SecretFile string `yaml:"secret_file" restart:"yes"`

	// The environment variable with the TSIG key or the API token, instead of a file.
	SecretEnv string `yaml:"secret_env" restart:"yes"`

	// How long others may keep a record that is written.
	TTL time.Duration `yaml:"ttl" range:"1m..7d" restart:"yes"`
}

// Enabled says that records are written.
func (p *DKIMPublish) Enabled() bool { return p.Provider != "off" }

// Secret returns the TSIG key or API token.
func (p *DKIMPublish) Secret() (string, error) {
	if p.SecretEnv != "" {
		if s := strings.TrimSpace(os.Getenv(p.SecretEnv)); s != "" {
			return s, nil
		}
		return "", fmt.Errorf("dkim.publish.secret_env: the environment has no %s", p.SecretEnv)
	}
	text, err := os.ReadFile(p.SecretFile)
	if err != nil {
		return "", fmt.Errorf("dkim.publish.secret_file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// DefaultDKIM returns what holds where the file says nothing.
func DefaultDKIM() DKIM {
	const day = 24 * time.Hour
	return DKIM{
		RequireRecord: true, Algorithms: []string{"rsa", "ed25519"}, RSABits: 2048, Expire: 7 * day, ActivateAfter: time.Hour,
		Publish: DKIMPublish{Provider: "off", KeyAlgorithm: "hmac-sha256", TTL: time.Hour},
	}
}

// DefaultDKIMKey returns what a key in the file has before its own keys are read.
func DefaultDKIMKey() DKIMKey { return DKIMKey{Timeout: 5 * time.Second} }

// RecordsStay is how long the record of a key stays in DNS after it signed last.
func (c *Config) RecordsStay() time.Duration {
	if c.DKIM.RetireAfter > 0 {
		return c.DKIM.RetireAfter
	}
	return max(c.longestAge()+48*time.Hour, c.DKIM.Expire)
}

func (c *Config) longestAge() (age time.Duration) {
	for _, a := range c.Delivery.MaxAge {
		age = max(age, a)
	}
	return age
}

var (
	fieldPattern    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,75}$`)
	variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// domainAt brings a domain into the form that domains are compared in.
func (d *decoder) domainAt(key string, name *string) bool {
	ascii, err := smtp.DomainToASCII(strings.TrimSuffix(*name, "."))
	if err != nil || !hostPattern.MatchString(ascii) || !strings.Contains(ascii, ".") {
		d.wrong(key, strconv.Quote(*name)+" is not a domain", "write it as it stands behind the @, such as example.com")
		return false
	}
	*name = ascii
	return true
}

func (d *decoder) checkDKIM() {
	k := &d.cfg.DKIM
	d.checkDKIMKeys()
	if k.Operator != "" {
		d.domainAt("dkim.operator", &k.Operator)
	}
	if len(k.Algorithms) == 0 {
		d.wrong("dkim.algorithms", "are none, so no key could be made", "write [rsa, ed25519], or [rsa]")
	}
	for i, a := range k.Algorithms {
		if slices.Index(k.Algorithms, a) != i {
			d.wrong(fmt.Sprintf("dkim.algorithms[%d]", i), a+" is given twice", "keep one of them")
		}
	}
	if len(k.Algorithms) == 1 && k.Algorithms[0] == "ed25519" {
		d.advise("dkim.algorithms", "ed25519 alone is not verified by many receivers", "write [rsa, ed25519]")
	}
	longest := d.cfg.longestAge()
	if k.Expire > 0 && k.Expire < longest+time.Hour {
		d.wrong("dkim.expire", FormatDuration(k.Expire)+" is over before delivery is given up, so late mail would arrive with a signature that "+
			"has expired", "write more than "+FormatDuration(longest+time.Hour)+", or 0")
	}
	if k.RetireAfter > 0 && k.RetireAfter < longest+time.Hour {
		d.wrong("dkim.retire_after", FormatDuration(k.RetireAfter)+" is over before delivery is given up, so late mail could not be verified",
			"write more than "+FormatDuration(longest+time.Hour)+", or 0")
	}
	if least := 2*k.ActivateAfter + 24*time.Hour; k.RotateEvery > 0 && k.RotateEvery < least {
		d.wrong("dkim.rotate_every", FormatDuration(k.RotateEvery)+" leaves a new key no time to be seen", "write "+FormatDuration(least)+
			" or more; half a year (180d) is usual")
	}
	if !k.RequireRecord {
		d.advise("dkim.require_record", "mail may be signed by keys that nobody finds", "put the records into DNS and leave this out")
	}
	for i, s := range k.CheckAt {
		if _, err := ParseServer(s); err != nil {
			d.wrong(fmt.Sprintf("dkim.check_at[%d]", i), strconv.Quote(s)+" is not an IP address",
				`write an address, with a port if it is not 53: "192.0.2.53" or "[2001:db8::53]:5353"`)
		}
	}
	for name, list := range map[string][]string{"headers": k.Headers, "oversign": k.Oversign} {
		for i, f := range list {
			at := fmt.Sprintf("dkim.%s[%d]", name, i)
			switch {
			case !fieldPattern.MatchString(f):
				d.wrong(at, strconv.Quote(f)+" is not the name of a header field", "write it without a colon, such as X-Campaign")
			case strings.EqualFold(f, "Received"), strings.EqualFold(f, "Return-Path"), strings.EqualFold(f, "DKIM-Signature"):
				d.wrong(at, f+" is added or changed on the way, so signatures would break", "leave it out")
			}
		}
	}
	d.checkDKIMPublish()
}

func (d *decoder) checkDKIMKeys() {
	type place struct{ domain, selector string }
	first := make(map[place]int)
	for i := range d.cfg.DKIM.Keys {
		k := &d.cfg.DKIM.Keys[i]
		key := fmt.Sprintf("dkim.keys[%d]", i)
		if k.Domain == "" {
			d.missing(key, "domain", "is missing", "write the domain that signs, such as example.com")
		} else {
			d.domainAt(key+".domain", &k.Domain)
		}
		k.Selector = strings.ToLower(k.Selector)
		switch at, twice := first[place{k.Domain, k.Selector}]; {
		case k.Selector == "":
			d.missing(key, "selector", "is missing", "write what stands before ._domainkey in DNS, such as s202611r")
		case !hostPattern.MatchString(k.Selector):
			d.wrong(key+".selector", strconv.Quote(k.Selector)+" is not a selector", "write what stands before ._domainkey in DNS, such as s202611r")
		case twice:
			d.wrong(key+".selector", fmt.Sprintf("%s of %s is also dkim.keys[%d]", k.Selector, k.Domain, at), "give each key its own selector")
		default:
			first[place{k.Domain, k.Selector}] = i
		}
		if k.Tenant != "" && !wordPattern.MatchString(k.Tenant) {
			d.wrong(key+".tenant", strconv.Quote(k.Tenant)+" is not a short name", shortName)
		}
		for name, file := range map[string]string{"file": k.File, "public_key": k.PublicKey} {
			if file != "" && !filepath.IsAbs(file) {
				d.wrong(key+"."+name, strconv.Quote(file)+" is not an absolute path", "write it from the root, such as /etc/godwit/dkim/"+filepath.Base(file))
			}
		}
		switch {
		case k.File == "" && len(k.Command) == 0:
			d.missing(key, "file", "is missing, so nothing could sign", "name the file with the private key, or a command that signs")
		case k.File != "" && len(k.Command) > 0:
			d.wrong(key+".command", "stands beside file", "give one of them")
		case len(k.Command) > 0 && !filepath.IsAbs(k.Command[0]):
			d.wrong(key+".command[0]", strconv.Quote(k.Command[0])+" is not an absolute path", "write the command from the root, such as /usr/bin/openssl")
		case len(k.Command) > 0 && k.PublicKey == "":
			d.missing(key, "public_key", "is missing, so no signature of the command could be checked", "name the file with the public key (PEM)")
		case k.File != "" && k.PublicKey != "":
			d.wrong(key+".public_key", "is of no use beside file, which holds it", "remove it")
		}
	}
}

func (d *decoder) checkDKIMPublish() {
	const key = "dkim.publish"
	p := &d.cfg.DKIM.Publish
	if !p.Enabled() {
		if len(p.Zones) > 0 || p.Server != "" {
			d.advise(key+".provider", "is off, so no record is written", "write rfc2136 or cloudflare")
		}
		return
	}
	if len(p.Zones) == 0 {
		d.missing(key, "zones", "are missing, so no record may be written", "list the zones, such as [example.com]")
	}
	for i := range p.Zones {
		d.domainAt(fmt.Sprintf("%s.zones[%d]", key, i), &p.Zones[i])
	}
	switch {
	case p.SecretFile == "" && p.SecretEnv == "":
		d.missing(key, "secret_file", "is missing, so no record could be written", "name the file with the TSIG key or the API token, or an "+
			"environment variable: secret_env")
	case p.SecretFile != "" && p.SecretEnv != "":
		d.wrong(key+".secret_env", "stands beside secret_file", "give one of them")
	case p.SecretFile != "" && !filepath.IsAbs(p.SecretFile):
		d.wrong(key+".secret_file", strconv.Quote(p.SecretFile)+" is not an absolute path", "write it from the root, such as /etc/godwit/dns.key")
	case p.SecretEnv != "" && !variablePattern.MatchString(p.SecretEnv):
		d.wrong(key+".secret_env", "is not the name of an environment variable", "write the name, such as GODWIT_DNS_TOKEN, not the secret itself")
	}
	if p.Provider != "rfc2136" {
		return
	}
	if p.KeyName == "" {
		d.missing(key, "key_name", "is missing", "write the name of the TSIG key, as the name server knows it")
	}
	if p.Server == "" {
		d.missing(key, "server", "is missing", `name the server that takes updates, such as "192.0.2.53:53"`)
	} else if _, err := ParseServer(p.Server); err != nil {
		d.wrong(key+".server", strconv.Quote(p.Server)+" is not an IP address", `write an address, with a port if it is not 53: "192.0.2.53:53"`)
	}
}
