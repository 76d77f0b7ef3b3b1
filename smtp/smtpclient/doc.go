// Package smtpclient is the sending side of SMTP: one session over any [net.Conn], and the transactions in it.
//
// It knows neither DNS nor queues. The caller dials, hands the connection over, and gets for every recipient of a
// transaction what became of it, in which phase and by which words of the peer:
//
//	c := smtpclient.New(nc, smtpclient.Options{Hello: "mta1.example.com"})
//	defer c.Close()
//	if err := c.Start(ctx); err != nil { // banner, EHLO, at need HELO
//		return err // a *Error: a refusal with its reply, or a broken connection
//	}
//	t := smtpclient.Transaction{From: from, Recipients: recipients, Body: body}
//	err := c.Send(ctx, &t) // err says that the session is over; t.Result is filled in any case
//	for i, r := range t.Result.Recipients {
//		fmt.Println(recipients[i], r.Status, r.Phase, r.Reply)
//	}
//	if c.Reusable() { ... } // keep it; ask c.Alive() before the next Send
//
// What goes over the wire is as little as the peer allows. With PIPELINING the commands of a transaction leave in
// one write (RFC 2920), with CHUNKING the body follows by BDAT without any escaping (RFC 3030), and on a session
// that has proven itself a small message is one write and one round trip. The body leaves from where it lies, by
// vectored writes.
//
// Peers lie, stall, and die. Every reply is bounded in size and time, a reply that makes no sense ends the session
// as a temporary failure, and a connection that breaks after the end of the data gives [Unknown], the one result
// that may lead to a second delivery (RFC 5321, 4.5.3.2.6). A context cancels a transaction only before that point.
//
// TLS is the caller's decision: [Conn.StartTLS] after Start, or [Options.ImplicitTLS]. What was learnt in the clear is
// forgotten with the handshake, and a STARTTLS that is refused leaves the session as it was. [Conn.Login] is for
// smart hosts, and never in the clear.
//
// RFCs: 5321 (SMTP), 2033 (LMTP), 2920 (PIPELINING), 3030 (CHUNKING), 1870 (SIZE), 6152 (8BITMIME), 6531
// (SMTPUTF8), 3461 (DSN), 2034 and 3463 (enhanced codes), 9422 (LIMITS), 3207 (STARTTLS), 8314 (implicit TLS),
// 4954 (AUTH), 8689 (REQUIRETLS).
package smtpclient
