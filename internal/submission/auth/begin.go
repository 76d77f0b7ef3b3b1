package auth

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"crypto/tls"

	"golang.org/x/text/secure/precis"

	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/sasl"
)

// Client is who knocks.
type Client struct {
	Addr     netip.Addr // whom budgets and allowed networks go by
	Listener string     // for logs
	Session  string     // for logs
	TLS      *tls.ConnectionState
}

// Policy is what a listener allows.
type Policy struct {
	InsecureAuth bool     // secrets may be sent without TLS
	Mechanisms   []string // empty: all that can be
}

// The refusals of Begin. Their texts are fixed.
var (
	replyAddressBanned = smtp.Reply{Code: 421, Enhanced: smtp.EnhancedCode{Class: 4, Subject: 7, Detail: 0},
		Text: "Too many failed logins from this address, try again later"}
	replyNeedsTLS = smtp.Reply{Code: 538, Enhanced: smtp.EnhancedCode{Class: 5, Subject: 7, Detail: 11},
		Text: "Encryption required: use STARTTLS first"}
	replyNoMechanism = smtp.Reply{Code: 504, Enhanced: smtp.EnhancedCode{Class: 5, Subject: 5, Detail: 4},
		Text: "Authentication mechanism not offered here"}
)

// maxPassword bounds what is hashed, in octets.
const maxPassword = 1024

// anyLogin is the user name that goes with every API key.
const anyLogin = "apikey"

// Mechanisms returns what is offered to a client, the strongest first.
func (d *Directory) Mechanisms(c Client, p Policy) []string {
	if c.TLS == nil && !p.InsecureAuth {
		return nil
	}
	list := make([]string, 0, 7)
	add := func(name string) {
		if len(p.Mechanisms) == 0 || slices.Contains(p.Mechanisms, name) {
			list = append(list, name)
		}
	}
	if verifiedCertificate(c) {
		add(sasl.NameExternal)
	}
	if c.TLS != nil && c.TLS.Version >= tls.VersionTLS13 {
		add(sasl.NameScramSHA256Plus)
	}
	add(sasl.NameScramSHA256)
	add(sasl.NamePlain)
	add(sasl.NameLogin)
	if d.issuers.Load().any() {
		add(sasl.NameOAuthBearer)
		add(sasl.NameXOAuth2)
	}
	return list
}

func verifiedCertificate(c Client) bool {
	return c.TLS != nil && len(c.TLS.VerifiedChains) > 0 && len(c.TLS.VerifiedChains[0]) > 0
}

// Begin begins an exchange. done is called once, in the goroutine that drives the exchange, when it has succeeded. A
// reply that is not zero refuses at once: the mechanism is not offered, or the address had too many failures.
func (d *Directory) Begin(_ context.Context, mechanism string, c Client, p Policy, done func(*Identity)) (sasl.Server, smtp.Reply) {
	mechanism = strings.ToUpper(mechanism)
	if !slices.Contains(d.Mechanisms(c, p), mechanism) {
		if c.TLS == nil && !p.InsecureAuth {
			return nil, replyNeedsTLS
		}
		return nil, replyNoMechanism
	}
	a := &attempt{d: d, client: c, addr: network(c.Addr), mechanism: mechanism, doors: []Scope{ScopeSMTP}, done: done}
	if d.guard.shut(a.addr) {
		a.report(outcomeAddressOver)
		return nil, replyAddressBanned
	}
	switch mechanism {
	case sasl.NamePlain:
		a.server = sasl.Plain(a.password)
	case sasl.NameLogin:
		a.server = sasl.Login(a.password)
	case sasl.NameScramSHA256, sasl.NameScramSHA256Plus:
		binding := sasl.TLSExporter(c.TLS)
		if binding != nil {
			// The client must not have been kept from -PLUS by somebody in between, unless we did not offer it.
			binding.Unused = mechanism == sasl.NameScramSHA256
			if binding.Unused && len(p.Mechanisms) > 0 && !slices.Contains(p.Mechanisms, sasl.NameScramSHA256Plus) {
				binding = nil
			}
		}
		if binding == nil && mechanism == sasl.NameScramSHA256Plus {
			return nil, replyNoMechanism
		}
		a.server = sasl.ScramSHA256(a.scram, binding, func(string) {})
	case sasl.NameExternal:
		a.server = sasl.External(a.external)
	case sasl.NameOAuthBearer:
		a.server = sasl.OAuthBearer(a.token)
	case sasl.NameXOAuth2:
		a.server = sasl.XOAuth2(a.token)
	}
	return a, smtp.Reply{}
}

// attempt is one exchange. It stands before the mechanism's own server and draws the consequences of its end.
type attempt struct {
	d         *Directory
	server    sasl.Server
	client    Client
	addr      netip.Prefix
	mechanism string
	doors     []Scope // one of which the credential must open
	done      func(*Identity)

	login    string           // in normal form, as far as it is known
	entry    *credentialEntry // nil: there is no such name
	home     bool
	outcome  outcome // why the exchange will fail, as far as it is known
	identity *Identity
}

// Next implements sasl.Server.
func (a *attempt) Next(ctx context.Context, response []byte) ([]byte, bool, error) {
	challenge, done, err := a.server.Next(ctx, response)
	switch {
	case done && a.identity == nil:
		return nil, false, errors.New("auth: an exchange succeeded for nobody") // a fault of ours lets nobody in
	case done:
		a.succeed()
	case errors.Is(err, sasl.ErrFailed):
		if a.outcome == "" {
			a.outcome = outcomeFailed
		}
		a.fail()
	case errors.Is(err, sasl.ErrTemporary):
		a.report(a.outcome)
	case errors.Is(err, sasl.ErrMalformed):
		a.report(outcomeMalformed)
	}
	return challenge, done, err
}

func (a *attempt) succeed() {
	if a.outcome == "" {
		a.outcome = outcomeOK
	}
	a.report(a.outcome)
	in, out := a.entry.use.note(a.addr)
	a.d.guard.moved(in, out)
	a.d.guard.succeeded(a.addr, a.login)
	if a.done != nil {
		a.done(a.identity)
	}
}

func (a *attempt) fail() {
	a.report(a.outcome)
	tenant := ""
	if a.entry != nil {
		if c := a.entry.current.Load(); c != nil {
			tenant = c.Tenant
		}
	}
	a.d.guard.failed(a.addr, a.login, tenant, a.home)
}

// report writes down what became of an attempt. The name of somebody who does not exist is not written: people type
// passwords there.
func (a *attempt) report(o outcome) {
	if o == "" {
		o = outcomeFailed
	}
	a.d.metrics.attempts.WithLabelValues(a.mechanism, string(o)).Inc()
	if o == outcomeOK || o == outcomeCached {
		return
	}
	login, tenant := "", ""
	if a.entry != nil {
		if c := a.entry.current.Load(); c != nil {
			login, tenant = c.Login, c.Tenant
		}
	}
	a.d.o.Logger.Info("login refused", "session", a.client.Session, "listener", a.client.Listener,
		"client", a.client.Addr.String(), "mechanism", a.mechanism, "outcome", string(o), "login", login, "tenant", tenant)
}

// find looks a name up and asks the budgets. It returns an error if the attempt is not to go on.
func (a *attempt) find(login string) error {
	a.login = loginForm(login)
	a.entry = a.d.state.login(a.login)
	return a.budget()
}

// budget asks whether the name may try from the address.
func (a *attempt) budget() error {
	a.home = a.entry != nil && a.entry.use.home(a.addr, a.d.o.Budgets.AtHome)
	if why, ok := a.d.guard.allows(a.addr, a.login, a.home); !ok {
		a.outcome = why
		return sasl.ErrTemporary
	}
	return nil
}

// loginForm brings a user name into the form that it is compared in (RFC 8265, 3.3). What cannot be a name is returned as
// it is, cut, and found nowhere.
func loginForm(s string) string {
	if len(s) > maxLogin {
		s = s[:maxLogin]
	}
	ascii := true
	for i := range len(s) {
		ascii = ascii && s[i] < 0x80
	}
	if ascii {
		return strings.ToLower(s)
	}
	form, err := precis.UsernameCaseMapped.String(s)
	if err != nil {
		return strings.ToValidUTF8(s, "?")
	}
	return form
}

// password checks a name and password; it is the question of PLAIN and LOGIN.
func (a *attempt) password(ctx context.Context, authzid, authcid, password string) error {
	if keyCredential(password) != "" {
		return a.key(authzid, authcid, password)
	}
	if err := a.find(authcid); err != nil {
		return err
	}
	if authzid != "" && loginForm(authzid) != a.login {
		a.entry = nil // nobody acts for another; the way to the answer is that of an unknown name
	}
	var record *credentialRecord
	if a.entry != nil {
		record = a.entry.current.Load()
	}
	if id, ok := a.d.known.find(record, a.login, password); ok && record != nil { // asked of nobody too, for the time it takes
		a.outcome = outcomeCached
		return a.admit(record, id)
	}
	if !a.home && a.d.guard.crowded() {
		a.outcome = outcomeGlobalOver
		return sasl.ErrTemporary
	}
	secret, err := a.hash(ctx, record, password)
	switch {
	case err != nil:
		return err
	case record == nil || record.Kind != Password:
		a.outcome = outcomeUnknown
		return sasl.ErrFailed
	case secret == "":
		a.outcome = outcomeWrong
		return sasl.ErrFailed
	}
	if err := a.admit(record, secret); err != nil {
		return err
	}
	a.d.known.add(record, a.login, password, secret)
	return nil
}

// hash finds the secret that the password is. As many hashes are computed for a name that does not exist as for one
// that does and has one secret.
func (a *attempt) hash(ctx context.Context, record *credentialRecord, password string) (secret string, err error) {
	if !a.d.gate.enter(ctx, a.home) {
		a.outcome = outcomeBusy
		return "", sasl.ErrTemporary
	}
	begin := time.Now()
	defer func() {
		took := time.Since(begin)
		a.d.metrics.hash.Observe(took.Seconds())
		if secret == "" && !a.home {
			a.d.gate.rest(took)
			return
		}
		a.d.gate.leave()
	}()
	if len(password) > maxPassword {
		password = password[:maxPassword] + "\x00" // no password has that form
	}
	hashed := false
	if record != nil {
		for i := range record.Secrets {
			if s := &record.Secrets[i]; s.params != nil && s.good(begin) {
				hashed = true
				if s.params.matches(password) {
					return s.ID, nil
				}
			}
		}
	}
	if !hashed {
		a.d.decoy.matches(password)
	}
	return "", nil
}

// key checks an API key that is given as password. The user name must be the key's own or "apikey".
func (a *attempt) key(authzid, authcid, key string) error {
	a.entry = a.d.state.credential(keyCredential(key))
	a.login = loginForm(authcid)
	var record *credentialRecord
	if a.entry != nil {
		record = a.entry.current.Load()
	}
	if record != nil && a.login == anyLogin {
		a.login = record.Login
	}
	if record == nil || record.Kind != Key || record.Login != a.login || authzid != "" && loginForm(authzid) != a.login {
		a.entry, record = nil, nil // whoever knows a key's id does not count as at home where its owner is
	}
	if err := a.budget(); err != nil {
		return err
	}
	if record == nil {
		a.outcome = outcomeUnknown
		return sasl.ErrFailed
	}
	digest, now := keyDigest(key), time.Now()
	for i := range record.Secrets {
		if s := &record.Secrets[i]; s.good(now) && sameDigest(s.Digest, digest) {
			return a.admit(record, s.ID)
		}
	}
	a.outcome = outcomeWrong
	return sasl.ErrFailed
}

// admit makes the identity of a credential whose holder has proven itself, if it may come in at all.
func (a *attempt) admit(record *credentialRecord, secret string) error {
	tenant := a.d.state.tenant(record.Tenant)
	if tenant == nil {
		a.outcome = outcomeDisabled
		return sasl.ErrFailed
	}
	switch err := record.usable(tenant, time.Now()); {
	case errors.Is(err, ErrExpired):
		a.outcome = outcomeExpired
		return sasl.ErrFailed
	case err != nil:
		a.outcome = outcomeDisabled
		return sasl.ErrFailed
	case !record.from(a.client.Addr):
		a.outcome = outcomeNetwork
		return sasl.ErrFailed
	case !slices.ContainsFunc(a.doors, record.Has):
		a.outcome = outcomeScope
		return sasl.ErrFailed
	}
	a.identity = &Identity{
		Credential: record.ID, Login: record.Login, Tenant: record.Tenant, Mechanism: a.mechanism, Role: record.Role,
		AllTenants: record.AllTenants, Scopes: record.Scopes,
		directory: a.d, entry: a.entry, tenant: tenant, secret: secret,
	}
	return nil
}

// from reports whether the credential may come from an address.
func (c *credentialRecord) from(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return len(c.Networks) == 0 || slices.ContainsFunc(c.Networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// scram finds the verifier of a name. For one that may not come in it is one that fits no password.
func (a *attempt) scram(_ context.Context, user string) (sasl.Verifier, error) {
	if err := a.find(user); err != nil {
		return sasl.Verifier{}, err
	}
	decoy := sasl.FakeVerifier(a.d.salt, a.login, saltSize, a.d.o.ScramIterations)
	if a.entry == nil {
		a.outcome = outcomeUnknown
		return decoy, sasl.ErrFailed
	}
	record := a.entry.current.Load()
	if record == nil || record.Kind != Password || len(record.Secrets) == 0 || record.Secrets[0].Scram == nil {
		a.outcome = outcomeUnknown
		return decoy, sasl.ErrFailed
	}
	verifier := record.Secrets[0].Scram.verifier()
	if err := a.admit(record, record.Secrets[0].ID); err != nil {
		a.identity = nil
		return verifier, err // its own salt: who asks again sees no change when it is disabled
	}
	return verifier, nil
}

// external finds the credential of a verified client certificate (RFC 4422, A).
func (a *attempt) external(_ context.Context, authzid string) error {
	if !verifiedCertificate(a.client) {
		return sasl.ErrFailed
	}
	for _, name := range certificateNames(a.client.TLS.VerifiedChains[0][0]) {
		e := a.d.state.certificate(name)
		if e == nil {
			continue
		}
		record := e.current.Load()
		if record == nil || authzid != "" && loginForm(authzid) != record.Login {
			continue
		}
		a.entry, a.login = e, record.Login
		if err := a.budget(); err != nil {
			return err
		}
		return a.admit(record, "")
	}
	a.outcome = outcomeUnknown
	return sasl.ErrFailed
}

// Key finds the identity of an API key that a client has shown over HTTP, which opens one of the doors. The error wraps
// sasl.ErrFailed, whatever is wrong with the key, or sasl.ErrTemporary if the address has had too many failures.
func (d *Directory) Key(_ context.Context, key string, c Client, doors ...Scope) (*Identity, error) {
	a := &attempt{d: d, client: c, addr: network(c.Addr), mechanism: "KEY", doors: doors}
	if d.guard.shut(a.addr) {
		a.report(outcomeAddressOver)
		return nil, sasl.ErrTemporary
	}
	err := a.key("", anyLogin, key)
	switch {
	case err == nil:
		a.succeed()
		return a.identity, nil
	case errors.Is(err, sasl.ErrFailed):
		a.fail()
	default:
		a.report(a.outcome)
	}
	return nil, err
}
