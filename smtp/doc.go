// Package smtp holds the words of RFC 5321 that a server and a client share: commands, paths, envelopes, replies,
// enhanced status codes, service extensions, and the bytes of a message on their way through.
//
// It knows the wire and nothing else. The two engines are built on it: [smtpserver] speaks the receiving side of a
// session, [smtpclient] the sending side. All values here are plain data, safe to copy unless a type says otherwise.
//
// RFCs: 5321 (SMTP), 2034 and 3463 (enhanced codes), 3461 (DSN parameters), 3030 (CHUNKING), 6531 (SMTPUTF8),
// 1870 (SIZE), 6152 (8BITMIME), 2920 (PIPELINING).
//
// [smtpserver]: https://pkg.go.dev/github.com/godwit-mta/godwit/smtp/smtpserver
// [smtpclient]: https://pkg.go.dev/github.com/godwit-mta/godwit/smtp/smtpclient
package smtp
