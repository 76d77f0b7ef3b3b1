package keyring

import "time"

// State is how far a key has come in its life. The set is closed.
type State string

// The states, in order; see the package's comment.
const (
	Created   State = "created"
	Published State = "published"
	Verified  State = "verified"
	Signing   State = "signing"
	Retiring  State = "retiring"
	Revoked   State = "revoked"
)

// States lists all states in order.
func States() []State { return []State{Created, Published, Verified, Signing, Retiring, Revoked} }

// Algorithm is how a key signs, as a= of its signatures says it. The set is closed.
type Algorithm string

// The algorithms.
const (
	RSA     Algorithm = "rsa-sha256"     // RFC 8301
	Ed25519 Algorithm = "ed25519-sha256" // RFC 8463
)

// Algorithms lists all algorithms, the one that everybody can verify first.
func Algorithms() []Algorithm { return []Algorithm{RSA, Ed25519} }

// tag is what k= of a key record says.
func (a Algorithm) tag() string {
	if a == Ed25519 {
		return "ed25519"
	}
	return "rsa"
}

// record is what is known of a key. The fields of one that others may see do not change: a changed one takes its place.
type record struct {
	Domain    string    `json:"domain"` // in A-labels
	Selector  string    `json:"selector"`
	Tenant    string    `json:"tenant,omitempty"` // empty: the operator's
	Algorithm Algorithm `json:"algorithm"`
	Bits      int       `json:"bits"`
	State     State     `json:"state"`
	Static    bool      `json:"static,omitempty"` // a key of the configuration; here is only what DNS said of it
	Public    []byte    `json:"public"`           // what p= of its record is the base64 of

	// The private key: one of these, none once it is revoked.
	Sealed []byte `json:"sealed,omitempty"` // PKCS #8, sealed
	File   string `json:"file,omitempty"`   // name in Options.Dir

	Created   time.Time `json:"created"`
	Published time.Time `json:"published,omitzero"` // first seen by a resolver
	Verified  time.Time `json:"verified,omitzero"`  // first seen by all
	Activated time.Time `json:"activated,omitzero"` // first signed
	Retired   time.Time `json:"retired,omitzero"`   // last signed
	Revoked   time.Time `json:"revoked,omitzero"`

	Written     string    `json:"written,omitempty"`     // the text that the publisher put last; "-": it removed the record
	WrittenAt   time.Time `json:"written_at,omitzero"`   // when
	WriteError  string    `json:"write_error,omitempty"` // why it could not, in words
	WriteFailed time.Time `json:"write_failed,omitzero"` // since when
	WriteTried  time.Time `json:"write_tried,omitzero"`  // when it tried last
	Checked     time.Time `json:"checked,omitzero"`      // when DNS was asked last
	Good        time.Time `json:"good,omitzero"`         // when all resolvers had the record last
	Doubt       time.Time `json:"doubt,omitzero"`        // since when DNS contradicts, without a break
	Bad         time.Time `json:"bad,omitzero"`          // the same, confirmed
	Unknown     time.Time `json:"unknown,omitzero"`      // since when DNS does not answer, without a break
	Problem     string    `json:"problem,omitempty"`     // what the last check found wrong, in words
	Testing     bool      `json:"testing,omitempty"`     // the record has t=y
	Rotation    bool      `json:"rotation,omitempty"`    // made by itself, because the one before was old enough

	revision uint64     // of the store; 0: not there
	static   *staticKey // of Static
}

// key is the key of the record in the store.
func (r *record) key() string {
	if r.Static {
		return seenPrefix + r.name()
	}
	return prefix + r.name()
}

// name is the key's name in the store, without prefix.
func (r *record) name() string { return r.Domain + "/" + r.Selector }

// dnsName is where its record stands.
func (r *record) dnsName() string { return r.Selector + "._domainkey." + r.Domain }

// pending says that the key has yet to sign.
func (r *record) pending() bool {
	return r.State == Created || r.State == Published || r.State == Verified
}

// shown says that DNS has the record, as far as is known: it has been seen, and nobody says otherwise.
func (r *record) shown() bool { return !r.Good.IsZero() && r.Bad.IsZero() }

// lane is what one key at a time signs for.
type lane struct {
	domain, tenant string
	algorithm      Algorithm
}

func (r *record) lane() lane { return lane{r.Domain, r.Tenant, r.Algorithm} }
