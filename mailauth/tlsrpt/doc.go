// Package tlsrpt knows the reports by which senders tell a domain how TLS to its mail hosts went: SMTP TLS Reporting.
//
//	rec, err := tlsrpt.ParseRecord(txts)   // what the domain publishes at _smtp._tls.<domain>: where reports go
//	r := tlsrpt.Report{...}                // what is told
//	p, err := r.Gzip()                     // for HTTPS, or
//	m, err := tlsrpt.Mail{...}.Compose()   // for mail, to be signed
//	r, err := tlsrpt.Parse(file)           // what others tell
//
// Reading is forgiving where senders are known to err (times without a zone, a string where a list belongs, null for a list), and
// bounded everywhere: counts of policies, details and strings are limited, and nothing is allocated for what exceeds them.
//
//	RFC 8460, 3: the record; several or none that can be read are no record
//	RFC 8460, 4.3: result types
//	RFC 8460, 4.4: the JSON form, read and written
//	RFC 8460, 5.1: file name
//	RFC 8460, 5.3: the message that carries a report; it asks for delivery in spite of policies (RFC 8689, 5)
//	RFC 8460, 5.5: media types
package tlsrpt
