package smtpserver

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"github.com/godwit-mta/godwit/smtp/sasl"
	"github.com/godwit-mta/godwit/smtp/smtptest"
)

// TestSecureLoad sends through TLS and a login with the load generator, over TCP.
func TestSecureLoad(t *testing.T) {
	t.Parallel()
	for _, implicit := range []bool{false, true} {
		b := &loginBackend{backend: &backend{}}
		s := newTestServer(t, b, func(o *Options) { o.TLS, o.ImplicitTLS, o.Logger = serverTLS(t), implicit, nil })
		address, stop := serve(t, s)
		dial := func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
		secure := smtptest.SecureOptions{TLS: clientTLS(t), Implicit: implicit, Auth: func(*tls.ConnectionState, []string) (sasl.Client, error) {
			return sasl.ScramSHA256Client("joe", "secret", nil), nil
		}}
		r, err := smtptest.Load(t.Context(), smtptest.LoadOptions{Messages: 40, Sessions: 4, Size: 40 << 10, Dial: smtptest.SecureDial(dial, secure)})
		if err != nil || r.Accepted != 40 {
			t.Errorf("implicit %v: %+v, %v", implicit, r, err)
		}
		b.mu.Lock()
		loaded := len(b.mu.peers)
		b.mu.Unlock()
		secure.Auth = func(*tls.ConnectionState, []string) (sasl.Client, error) {
			return sasl.PlainClient("", "joe", "wrong"), nil
		}
		conn, err := dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err = smtptest.Secure(t.Context(), conn, secure); err == nil || !strings.Contains(err.Error(), "535") {
			t.Errorf("a wrong password: %v", err)
		}
		stop()
		for _, p := range b.mu.peers[:loaded] {
			if p.Authenticated != "joe" || p.TLS == nil {
				t.Errorf("%+v", p)
			}
		}
	}
}
