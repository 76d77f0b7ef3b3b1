package submission

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
	"github.com/godwit-mta/godwit/smtp/smtpserver"
)

// appendReceived appends the Received field that we put before the message (RFC 5321, 4.4). What the client called
// itself was cleaned by the engine: it cannot end the comment or the line.
func appendReceived(dst []byte, peer *smtpserver.Peer, hostname string, id message.ID, env *smtp.Envelope,
	now time.Time,
) []byte {
	dst = append(dst, "Received: from "...)
	dst = append(dst, cmp.Or(peer.Hello, "unknown")...)
	dst = append(dst, " (["...)
	dst = appendAddr(dst, peer.Remote.Addr())
	dst = append(dst, "])\r\n\tby "...)
	dst = append(dst, hostname...)
	dst = append(dst, " with "...)
	dst = append(dst, peer.Protocol(env.From.UTF8)...)
	dst = append(dst, " id "...)
	dst = id.AppendTo(dst)
	if rcpts := env.Recipients; len(rcpts) == 1 && len(rcpts[0].Local)+len(rcpts[0].Domain) < 200 {
		// With one recipient alone: nobody learns of the others (RFC 5321, 7.2).
		dst = append(dst, "\r\n\tfor <"...)
		dst = rcpts[0].AppendTo(dst)
		dst = append(dst, '>')
	}
	dst = append(dst, ";\r\n\t"...)
	dst = now.AppendFormat(dst, "Mon, 02 Jan 2006 15:04:05 -0700")
	return append(dst, '\r', '\n')
}

func appendAddr(dst []byte, a netip.Addr) []byte {
	a = a.Unmap()
	if a.Is6() {
		dst = append(dst, "IPv6:"...) // RFC 5321, 4.1.3
	}
	return a.WithZone("").AppendTo(dst)
}
