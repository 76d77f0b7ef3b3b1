package sasl

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// errChallenge is what a client says of a server that breaks the rules.
var errChallenge = errors.New("sasl: server sent a challenge that has no place")

// PlainClient is the client's side of PLAIN.
func PlainClient(authzid, authcid, password string) Client {
	return &oneShot{name: NamePlain, response: nulJoin(authzid, authcid, password)}
}

// ExternalClient is the client's side of EXTERNAL.
func ExternalClient(authzid string) Client {
	return &oneShot{name: NameExternal, response: []byte(authzid)}
}

// OAuthBearerClient is the client's side of OAUTHBEARER. user may be empty.
func OAuthBearerClient(user, token string) Client {
	zid := ""
	if user != "" {
		zid = "a=" + encodeName(user)
	}
	return &oneShot{
		name: NameOAuthBearer, answer: []byte(pairEnd),
		response: []byte("n," + zid + "," + pairEnd + "auth=Bearer " + token + pairEnd + pairEnd),
	}
}

// XOAuth2Client is the client's side of XOAUTH2.
func XOAuth2Client(user, token string) Client {
	return &oneShot{
		name: NameXOAuth2, answer: []byte{},
		response: []byte("user=" + user + pairEnd + "auth=Bearer " + token + pairEnd + pairEnd),
	}
}

// oneShot is a client that says all in its initial response.
type oneShot struct {
	name     string
	response []byte
	answer   []byte // to the challenge that tells a refusal; nil: there is none
}

func (c *oneShot) Start() (string, []byte, error) { return c.name, c.response, nil }

func (c *oneShot) Next([]byte) ([]byte, error) {
	if c.answer == nil {
		return nil, errChallenge
	}
	return c.answer, nil
}

// LoginClient is the client's side of LOGIN.
func LoginClient(name, password string) Client {
	return &loginClient{answers: []string{name, password}}
}

type loginClient struct{ answers []string }

func (c *loginClient) Start() (string, []byte, error) { return NameLogin, nil, nil }

func (c *loginClient) Next([]byte) ([]byte, error) {
	if len(c.answers) == 0 {
		return nil, errChallenge
	}
	answer := []byte(c.answers[0])
	c.answers = c.answers[1:]
	return answer, nil
}

// ScramSHA256Client is the client's side of SCRAM-SHA-256, or of -PLUS if there is a binding that is not Unused.
func ScramSHA256Client(user, password string, binding *ChannelBinding) Client {
	return &scramClient{user: user, password: password, binding: binding, nonce: newNonce()}
}

type scramClient struct {
	user, password string
	binding        *ChannelBinding
	nonce          string
	header, first  string
	server         []byte // the signature that the server owes us
	step           int
	verified       bool
}

func (c *scramClient) Start() (string, []byte, error) {
	name := NameScramSHA256
	switch {
	case c.binding == nil, c.binding.Unused:
		c.header = "n,,"
	default:
		name, c.header = NameScramSHA256Plus, "p="+c.binding.Type+",,"
	}
	c.first = "n=" + encodeName(c.user) + ",r=" + c.nonce
	return name, []byte(c.header + c.first), nil
}

func (c *scramClient) Next(challenge []byte) ([]byte, error) {
	c.step++
	switch c.step {
	case 1:
		return c.prove(string(challenge))
	case 2:
		signature, err := decode(strings.TrimPrefix(string(challenge), "v="))
		if err != nil || !hmac.Equal(signature, c.server) {
			return nil, fmt.Errorf("%w: server does not know the password", ErrFailed)
		}
		c.verified = true
		return []byte{}, nil
	}
	return nil, errChallenge
}

// Verified reports whether the server has proven that it knows the password (RFC 5802, 5). One that says that all is well
// before that is not to be believed.
func (c *scramClient) Verified() bool { return c.verified }

func (c *scramClient) prove(first string) ([]byte, error) {
	parts := strings.Split(first, ",")
	if len(parts) < 3 || !strings.HasPrefix(parts[0], "r="+c.nonce) || !strings.HasPrefix(parts[1], "s=") ||
		!strings.HasPrefix(parts[2], "i=") {
		return nil, errChallenge
	}
	salt, err := decode(parts[1][2:])
	if err != nil {
		return nil, errChallenge
	}
	iterations, err := strconv.Atoi(parts[2][2:])
	if err != nil || iterations < 1 || iterations > MaxIterations {
		return nil, errChallenge
	}
	password, err := Prepare(c.password)
	if err != nil {
		return nil, err
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("sasl: derive key: %w", err)
	}
	bound := []byte(c.header)
	if c.header[0] == 'p' {
		bound = append(bound, c.binding.Data...)
	}
	without := "c=" + base64.StdEncoding.EncodeToString(bound) + "," + parts[0]
	message := c.first + "," + first + "," + without
	key := mac(salted, "Client Key")
	v := verifierOf(salted, salt, iterations)
	c.server = mac(v.ServerKey, message)
	subtle.XORBytes(key, key, mac(v.StoredKey, message))
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(key)), nil
}
