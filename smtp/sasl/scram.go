package sasl

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of the iterations of a verifier. RFC 7677, 4, asks for 4,096 at least; a client computes them at each login.
const (
	MinIterations = 4096
	MaxIterations = 10_000_000
)

// Verifier is what a server keeps of a password for SCRAM-SHA-256 (RFC 5802, 3): whoever steals it can check guesses and
// pretend to be the server, but cannot log in with it.
type Verifier struct {
	Salt       []byte
	Iterations int
	StoredKey  []byte // 32 octets
	ServerKey  []byte // 32 octets
}

// NewVerifier makes the verifier of a password, which is prepared as in [Prepare]. It costs as much as the iterations
// say: about 0.2 ms for 4,096.
func NewVerifier(password string, salt []byte, iterations int) (Verifier, error) {
	if len(salt) < 8 || iterations < MinIterations || iterations > MaxIterations {
		return Verifier{}, fmt.Errorf("sasl: a verifier needs 8 octets of salt and %d to %d iterations", MinIterations, MaxIterations)
	}
	password, err := Prepare(password)
	if err != nil {
		return Verifier{}, err
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return Verifier{}, fmt.Errorf("sasl: derive key: %w", err)
	}
	return verifierOf(salted, salt, iterations), nil
}

func verifierOf(salted, salt []byte, iterations int) Verifier {
	stored := sha256.Sum256(mac(salted, "Client Key"))
	return Verifier{Salt: salt, Iterations: iterations, StoredKey: stored[:], ServerKey: mac(salted, "Server Key")}
}

// FakeVerifier makes a verifier for a user that does not exist: its salt is always the same for one name and secret, so
// that a client cannot tell it from a real one, and no password fits it. salt is the length of real salts.
func FakeVerifier(secret []byte, user string, salt, iterations int) Verifier {
	fill := func(what string, n int) []byte {
		var out []byte
		for i := 0; len(out) < n; i++ {
			out = append(out, mac(secret, what+strconv.Itoa(i)+"\x00"+user)...)
		}
		return out[:n]
	}
	return Verifier{
		Salt: fill("salt", salt), Iterations: iterations,
		StoredKey: fill("stored", sha256.Size), ServerKey: fill("server", sha256.Size),
	}
}

// valid reports whether a verifier can be used.
func (v *Verifier) valid() bool {
	return len(v.Salt) > 0 && v.Iterations > 0 && len(v.StoredKey) == sha256.Size && len(v.ServerKey) == sha256.Size
}

// ChannelBinding ties an exchange to the connection below, so that nobody in between can pass it on (RFC 5056).
type ChannelBinding struct {
	Type string // "tls-exporter"
	Data []byte

	// Unused says that -PLUS was offered and the client chose the mechanism without it. A client that claims the server
	// offered none was then lied to by somebody in between and is refused (RFC 5802, 6).
	Unused bool
}

// TLSExporter returns the binding to a TLS connection (RFC 9266), nil if there can be none. It exists with TLS 1.3 only:
// below, "no context" and "an empty context" give different keys, and programs do not agree on which is meant.
func TLSExporter(state *tls.ConnectionState) *ChannelBinding {
	if state == nil || state.Version < tls.VersionTLS13 {
		return nil
	}
	data, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		return nil
	}
	return &ChannelBinding{Type: "tls-exporter", Data: data}
}

// ScramSHA256 is SCRAM-SHA-256, or SCRAM-SHA-256-PLUS if there is a binding that is not Unused (RFC 5802, RFC 7677).
//
// lookup returns the verifier of a user. For one that does not exist, or may not log in, it returns a [FakeVerifier] with
// an error that wraps ErrFailed: the exchange then goes on to its end and fails there, as with a wrong password. done is
// told the user after success. The identity to act as must be the user or be left out.
func ScramSHA256(lookup func(ctx context.Context, user string) (Verifier, error), binding *ChannelBinding, done func(user string)) Server {
	return &scram{lookup: lookup, binding: binding, done: done, nonce: newNonce}
}

// newNonce makes 144 random bits in printable form without a comma.
func newNonce() string {
	var b [18]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.StdEncoding.EncodeToString(b[:])
}

type scramStep uint8

const (
	scramBegin scramStep = iota
	scramFirst           // the client's first message is due
	scramFinal           // its final message is due
	scramEmpty           // its answer to our last words is due
	scramOver
)

type scram struct {
	lookup  func(ctx context.Context, user string) (Verifier, error)
	binding *ChannelBinding
	done    func(user string)
	nonce   func() string

	step        scramStep
	user        string
	header      gs2
	verifier    Verifier
	refused     error // lookup's error; the exchange goes on so that nobody sees
	combined    string
	clientFirst string // without the GS2 header
	serverFirst string
}

// maxScram bounds the client's messages.
const maxScram = 2 << 10

func (s *scram) Next(ctx context.Context, response []byte) ([]byte, bool, error) {
	if len(response) > maxScram {
		s.step = scramOver
		return nil, false, malformed("response too long")
	}
	switch s.step {
	case scramBegin:
		s.step = scramFirst
		if response == nil {
			return nil, false, nil
		}
		fallthrough
	case scramFirst:
		return s.end(s.first(ctx, string(response)))
	case scramFinal:
		return s.end(s.final(string(response)))
	case scramEmpty:
		s.step = scramOver
		if len(response) != 0 {
			return nil, false, malformed("response after the end")
		}
		if s.done != nil {
			s.done(s.user)
		}
		return nil, true, nil
	}
	return nil, false, over()
}

// end closes the exchange if there is an error.
func (s *scram) end(challenge []byte, err error) ([]byte, bool, error) {
	if err != nil {
		s.step = scramOver
	}
	return challenge, false, err
}

// first takes the client's first message (RFC 5802, 7): GS2 header, name and nonce.
func (s *scram) first(ctx context.Context, message string) ([]byte, error) {
	h, bare, err := parseGS2(message)
	if err != nil {
		return nil, err
	}
	if err := s.checkFlag(h); err != nil {
		return nil, err
	}
	name, rest, ok := strings.Cut(bare, ",")
	if !ok || !strings.HasPrefix(name, "n=") { // "m=", a mandatory extension, is none we know
		return nil, malformed("no user name")
	}
	user, err := saslName(name[2:])
	if err != nil {
		return nil, err
	}
	if user == "" {
		return nil, malformed("empty user name")
	}
	if user, err = prepareName(user); err != nil {
		return nil, err
	}
	nonce, _, _ := strings.Cut(rest, ",") // extensions behind it are ignored
	nonce, ok = strings.CutPrefix(nonce, "r=")
	if !ok || len(nonce) < 8 || !printableNonce(nonce) {
		return nil, malformed("no nonce, or not a good one")
	}
	if h.authzid != "" && h.authzid != user {
		s.refused = fmt.Errorf("%w: may not act as another", ErrFailed)
	}
	v, err := s.lookup(ctx, user)
	if err != nil {
		if !errors.Is(err, ErrFailed) || !v.valid() {
			return nil, err
		}
		s.refused = err
	}
	if !v.valid() {
		return nil, errors.New("sasl: verifier is not complete")
	}
	s.user, s.header, s.verifier, s.clientFirst = user, h, v, bare
	s.combined = nonce + s.nonce()
	s.serverFirst = "r=" + s.combined + ",s=" + base64.StdEncoding.EncodeToString(v.Salt) + ",i=" + strconv.Itoa(v.Iterations)
	s.step = scramFinal
	return []byte(s.serverFirst), nil
}

// checkFlag compares what the client says of channel binding with what is so (RFC 5802, 6).
func (s *scram) checkFlag(h gs2) error {
	plus := s.binding != nil && !s.binding.Unused
	switch {
	case plus && h.flag != 'p':
		return malformed("-PLUS without channel binding")
	case plus && h.binding != s.binding.Type:
		return malformed("channel binding of a type that is not offered")
	case !plus && h.flag == 'p':
		return malformed("channel binding without -PLUS")
	case h.flag == 'y' && s.binding != nil:
		return fmt.Errorf("%w: somebody took -PLUS from our offer", ErrFailed)
	}
	return nil
}

func printableNonce(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// final takes the client's final message: binding, nonce and proof.
func (s *scram) final(message string) ([]byte, error) {
	at := strings.LastIndex(message, ",p=")
	if at < 0 {
		return nil, malformed("no proof")
	}
	without := message[:at]
	proof, err := decode(message[at+3:])
	if err != nil || len(proof) != sha256.Size {
		return nil, malformed("proof is not one")
	}
	bound, rest, _ := strings.Cut(without, ",")
	nonce, _, _ := strings.Cut(rest, ",")
	bound, ok1 := strings.CutPrefix(bound, "c=")
	nonce, ok2 := strings.CutPrefix(nonce, "r=")
	if !ok1 || !ok2 {
		return nil, malformed("no channel binding or no nonce")
	}
	cb, err := decode(bound)
	if err != nil {
		return nil, malformed("channel binding is not base64")
	}
	want := []byte(s.header.raw)
	if s.header.flag == 'p' {
		want = append(want, s.binding.Data...)
	}
	message = s.clientFirst + "," + s.serverFirst + "," + without
	signature := mac(s.verifier.StoredKey, message)
	subtle.XORBytes(proof, proof, signature)
	key := sha256.Sum256(proof)
	good := hmac.Equal(key[:], s.verifier.StoredKey)
	good = hmac.Equal(cb, want) && good
	good = hmac.Equal([]byte(nonce), []byte(s.combined)) && good
	switch {
	case s.refused != nil:
		return nil, s.refused
	case !good:
		return nil, fmt.Errorf("%w: proof does not fit", ErrFailed)
	}
	s.step = scramEmpty
	return []byte("v=" + base64.StdEncoding.EncodeToString(mac(s.verifier.ServerKey, message))), nil
}

// decode reads base64 in the one way that it can be written.
func decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") { // which the decoder would skip
		return nil, base64.CorruptInputError(0)
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}
