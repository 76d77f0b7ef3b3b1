package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/godwit-mta/godwit/smtp/sasl"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// loginFlags say how a command that speaks SMTP itself secures its session and who it is.
type loginFlags struct {
	user, passwordFile, tls, ca, mechanism string
}

// The forms of TLS, as --tls names them.
const (
	tlsOff      = "off"
	tlsStartTLS = "starttls"
	tlsImplicit = "implicit"
)

// passwordVariable is where a password is looked for that no file gives.
const passwordVariable = "GODWIT_PASSWORD"

// maxSecret bounds a password or token in octets.
const maxSecret = 16 << 10

func loginMechanisms() []string {
	return []string{
		sasl.NamePlain, sasl.NameLogin, sasl.NameScramSHA256, sasl.NameScramSHA256Plus, sasl.NameOAuthBearer, sasl.NameXOAuth2,
	}
}

func (l *loginFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&l.user, "user", "", "log in as `NAME`")
	f.StringVar(&l.passwordFile, "password-file", "", "`FILE` with the password, key or token; - is standard input "+
		"(default: "+passwordVariable+")")
	f.StringVar(&l.tls, "tls", "", "`FORM` of TLS: off, starttls or implicit (default: starttls with --user, otherwise off)")
	f.StringVar(&l.ca, "ca", "", "PEM `FILE` of authorities or certificates to trust instead of the system's")
	f.StringVar(&l.mechanism, "mechanism", "", "SASL `NAME` to log in by (default: the best that the server offers)")
	_ = c.MarkFlagFilename("password-file") // the flags exist
	_ = c.MarkFlagFilename("ca", "pem", "crt")
	complete(c, "tls", tlsOff, tlsStartTLS, tlsImplicit)
	complete(c, "mechanism", loginMechanisms()...)
}

// secure reads the secret and returns what to do before the mail of a session with the server, nil if nothing is.
func (a *app) secure(l *loginFlags, address string) (*smtptest.SecureOptions, error) {
	form := l.tls
	if form == "" {
		form = tlsOff
		if l.user != "" {
			form = tlsStartTLS
		}
	}
	mechanism := strings.ToUpper(l.mechanism)
	switch {
	case !slices.Contains([]string{tlsOff, tlsStartTLS, tlsImplicit}, form):
		return nil, usagef("--tls %q is not off, starttls or implicit", l.tls)
	case l.user == "" && (l.passwordFile != "" || l.mechanism != ""):
		return nil, usagef("--password-file and --mechanism go with --user NAME")
	case l.ca != "" && form == tlsOff:
		return nil, usagef("--ca goes with --tls starttls or --tls implicit")
	case mechanism != "" && !slices.Contains(loginMechanisms(), mechanism):
		return nil, usagef("--mechanism %q is not one of %s", l.mechanism, strings.Join(loginMechanisms(), ", "))
	}
	if form == tlsOff && l.user == "" {
		return nil, nil
	}
	o := &smtptest.SecureOptions{Implicit: form == tlsImplicit}
	if form != tlsOff {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("server %q: %w", address, err)
		}
		o.TLS = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
		if l.ca != "" {
			if o.TLS.RootCAs, err = readRoots(l.ca); err != nil {
				return nil, err
			}
		}
	}
	if l.user == "" {
		return o, nil
	}
	secret, err := a.loginSecret(l)
	if err != nil {
		return nil, err
	}
	o.Auth = func(state *tls.ConnectionState, offered []string) (sasl.Client, error) {
		return chooseLogin(l.user, secret, mechanism, state, offered)
	}
	return o, nil
}

func readRoots(path string) (*x509.CertPool, error) {
	p, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(p) {
		return nil, fmt.Errorf("--ca %s: there is no certificate in PEM form in it", path)
	}
	return roots, nil
}

// loginSecret finds the password. It never stands on a command line, where everyone on the machine could read it.
func (a *app) loginSecret(l *loginFlags) (string, error) {
	from := "--password-file " + l.passwordFile
	var secret string
	var err error
	terminal, ok := a.in.(*os.File)
	ok = ok && term.IsTerminal(int(terminal.Fd()))
	switch given, set := os.LookupEnv(passwordVariable); {
	case l.passwordFile != "" && l.passwordFile != "-":
		var f *os.File
		if f, err = os.Open(l.passwordFile); err == nil {
			secret, err = firstLine(f)
			err = errors.Join(err, f.Close())
		}
	case l.passwordFile == "" && set:
		from, secret = "the variable "+passwordVariable, given
	case ok:
		fmt.Fprintf(a.err, "Password of %s: ", l.user)
		var p []byte
		p, err = term.ReadPassword(int(terminal.Fd()))
		fmt.Fprintln(a.err)
		secret = string(p)
	case l.passwordFile == "-":
		secret, err = firstLine(a.in)
	default:
		return "", usagef("--user needs a password: --password-file FILE, or the variable %s", passwordVariable)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("read password: %w", err)
	case secret == "":
		return "", usagef("%s: there is no password in it", from)
	}
	return secret, nil
}

// firstLine reads octet by octet, so that what follows on standard input can be the text of the message.
func firstLine(r io.Reader) (string, error) {
	var line []byte
	for p := make([]byte, 1); len(line) <= maxSecret; {
		n, err := r.Read(p)
		if n > 0 && p[0] == '\n' || errors.Is(err, io.EOF) {
			return strings.TrimRight(string(append(line, p[:n]...)), "\r\n"), nil
		}
		if err != nil {
			return "", err
		}
		line = append(line, p[:n]...)
	}
	return "", fmt.Errorf("its first line is longer than %d octets", maxSecret)
}

// chooseLogin makes the client of the mechanism that was asked for, or of the best one that is offered. Inside TLS that is
// PLAIN, which API keys need; in the clear one that does not show the password, if there is one.
func chooseLogin(user, secret, mechanism string, state *tls.ConnectionState, offered []string) (sasl.Client, error) {
	if mechanism == "" {
		order := []string{sasl.NamePlain, sasl.NameScramSHA256, sasl.NameLogin}
		if state == nil {
			order = []string{sasl.NameScramSHA256, sasl.NamePlain, sasl.NameLogin}
		}
		i := slices.IndexFunc(order, func(m string) bool { return slices.Contains(offered, m) })
		switch {
		case len(offered) == 0 && state == nil:
			return nil, errors.New("the server lets nobody log in without TLS: use --tls starttls or --tls implicit")
		case len(offered) == 0:
			return nil, errors.New("the server lets nobody log in here: leave --user out, or name the port for submission")
		case i < 0:
			return nil, fmt.Errorf("the server offers %s: choose one with --mechanism", strings.Join(offered, ", "))
		}
		mechanism = order[i]
	}
	switch mechanism {
	case sasl.NamePlain:
		return sasl.PlainClient("", user, secret), nil
	case sasl.NameLogin:
		return sasl.LoginClient(user, secret), nil
	case sasl.NameScramSHA256:
		return sasl.ScramSHA256Client(user, secret, nil), nil
	case sasl.NameScramSHA256Plus:
		binding := sasl.TLSExporter(state)
		if binding == nil {
			return nil, fmt.Errorf("%s needs TLS 1.3, which this session does not have", mechanism)
		}
		return sasl.ScramSHA256Client(user, secret, binding), nil
	case sasl.NameOAuthBearer:
		return sasl.OAuthBearerClient(user, secret), nil
	}
	return sasl.XOAuth2Client(user, secret), nil
}
