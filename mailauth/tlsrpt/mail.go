package tlsrpt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"crypto/rand"

	"github.com/godwit-mta/godwit/message"
)

// Mail is the message that carries a report (RFC 8460, 5.3). It must be signed before it is sent.
type Mail struct {
	Report    *Report
	Domain    string // that the report is about, in A-labels
	Submitter string // domain of who reports, in A-labels
	From      message.Address
	To        string // local@domain
	MessageID string // without angle brackets
	Date      time.Time
	Rand      io.Reader // gives the boundary; nil means crypto/rand
}

// Compose returns the message in wire form, 7-bit.
func (m *Mail) Compose() ([]byte, error) {
	if m.Report == nil || m.Domain == "" || m.Submitter == "" {
		return nil, errors.New("tlsrpt: a message needs a report, its domain and who submits it")
	}
	file, err := m.Report.Gzip()
	if err != nil {
		return nil, err
	}
	from, err := message.FormatAddresses([]message.Address{m.From})
	if err != nil {
		return nil, fmt.Errorf("tlsrpt: from: %w", err)
	}
	random := m.Rand
	if random == nil {
		random = rand.Reader
	}
	var seed [15]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("tlsrpt: boundary: %w", err)
	}
	boundary := fmt.Sprintf("=_%x", seed)

	var b []byte
	for _, f := range [...]message.ExtraField{
		{Name: "From", Value: from},
		{Name: "To", Value: m.To},
		{Name: "Date", Value: message.FormatDate(m.Date.UTC())},
		{Name: "Message-ID", Value: "<" + m.MessageID + ">"},
		{Name: "Subject", Value: "Report Domain: " + m.Domain + " Submitter: " + m.Submitter + " Report-ID: <" + m.Report.ID + ">"},
		{Name: "TLS-Report-Domain", Value: m.Domain},
		{Name: "TLS-Report-Submitter", Value: m.Submitter},
		{Name: "TLS-Required", Value: "No"}, // what is wrong with TLS must not keep its report away (RFC 8460, 3; RFC 8689, 5)
		{Name: "Auto-Submitted", Value: "auto-generated"},
		{Name: "MIME-Version", Value: "1.0"},
		{Name: "Content-Type", Value: `multipart/report; report-type=tlsrpt; boundary="` + boundary + `"`},
	} {
		if b, err = message.AppendField(b, f.Name, f.Value); err != nil {
			return nil, fmt.Errorf("tlsrpt: %w", err)
		}
	}
	s := m.Report.Totals()
	return m.body(b, boundary, s, file), nil
}

func (m *Mail) body(b []byte, boundary string, s Summary, file []byte) []byte {
	out := bytes.NewBuffer(b)
	line := func(format string, args ...any) { fmt.Fprintf(out, format+"\r\n", args...) }
	line("")
	line("--%s", boundary)
	line("Content-Type: text/plain; charset=us-ascii")
	line("Content-Transfer-Encoding: 7bit")
	line("")
	line("This is an aggregate TLS report from %s about mail to %s,", m.Submitter, m.Domain)
	line("%s to %s.", m.Report.Range.Start.UTC().Format(time.RFC3339), m.Report.Range.End.UTC().Format(time.RFC3339))
	line("")
	line("Sessions that succeeded: %d", s.Successful)
	line("Sessions that failed:    %d", s.Failed)
	line("")
	line("--%s", boundary)
	line("Content-Type: %s", MediaType)
	line("Content-Transfer-Encoding: base64")
	// Domains in A-labels have nothing that a quoted string must escape; long names stand on lines of their own.
	line("Content-Disposition: attachment;\r\n filename=\"%s\"", strings.Map(noQuote, m.Report.FileName(m.Submitter, m.Domain)))
	line("")
	out.Write(wrapBase64(file))
	line("--%s--", boundary)
	return out.Bytes()
}

func noQuote(r rune) rune {
	if r < 0x21 || r > 0x7e || r == '"' || r == '\\' {
		return '_'
	}
	return r
}
