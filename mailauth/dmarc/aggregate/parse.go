package aggregate

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds on what is read of one report.
const (
	MaxRecords = 50_000
	maxDepth   = 16
	maxResults = 100      // of one kind in one record; further ones are passed over
	maxErrors  = 20       // likewise
	maxToken   = 64 << 10 // octets of a tag or text
	maxText    = 1000     // octets kept of one text
	maxCount   = 1 << 48
)

// What callers branch on.
var (
	ErrTooMany = errors.New("aggregate: the report has too many records")
	ErrUnsafe  = errors.New("aggregate: the report has what no report needs")
)

// Parse reads a report, decompressed, as a stream. It does not bound the octets of r. The error says that it is no such report.
func Parse(r io.Reader) (*Report, error) {
	in := &metered{r: bufio.NewReader(r), left: maxToken}
	p := parser{dec: xml.NewDecoder(in), in: in, out: new(Report)}
	p.dec.CharsetReader = charset
	p.dec.Strict = true
	if err := p.run(); err != nil {
		return nil, err
	}
	out := p.out
	switch {
	case out.ID == "" && out.Organization == "":
		return nil, errors.New("aggregate: the report says neither who made it nor its id")
	case out.Policy.Domain == "":
		return nil, errors.New("aggregate: the report says not which domain it is about")
	case out.Begin.IsZero() || out.End.Before(out.Begin):
		return nil, errors.New("aggregate: the report says not what time it is about")
	}
	return out, nil
}

// metered gives the XML reader octet by octet, no more than left between two tokens: a single tag with a million attributes would be
// built in memory before anybody could look at it.
type metered struct {
	r    *bufio.Reader
	left int
}

func (m *metered) ReadByte() (byte, error) {
	if m.left--; m.left < 0 {
		return 0, fmt.Errorf("%w: a tag or text of more than %d octets", ErrUnsafe, maxToken)
	}
	return m.r.ReadByte()
}

// Read is there for the interface; the XML reader takes octets.
func (m *metered) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c, err := m.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = c
	return 1, nil
}

// charset reads what some senders declare besides UTF-8.
func charset(name string, r io.Reader) (io.Reader, error) {
	switch strings.ToLower(name) {
	case "us-ascii", "ascii", "utf8":
		return r, nil
	case "iso-8859-1", "iso_8859-1", "latin1", "windows-1252", "iso-8859-15":
		// The few characters by which these differ are in names for people alone.
		return &latin1{r: r}, nil
	}
	return nil, fmt.Errorf("the character set %q is not read", cut(name))
}

// latin1 turns each octet into the character of the same number.
type latin1 struct {
	r    io.Reader
	next byte
	have bool
}

func (l *latin1) ReadByte() (byte, error) {
	if l.have {
		l.have = false
		return l.next, nil
	}
	var c [1]byte
	if _, err := io.ReadFull(l.r, c[:]); err != nil {
		return 0, err
	}
	if c[0] < 0x80 {
		return c[0], nil
	}
	l.next, l.have = 0x80|c[0]&0x3f, true
	return 0xc0 | c[0]>>6, nil
}

func (l *latin1) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c, err := l.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = c
	return 1, nil
}

type parser struct {
	dec  *xml.Decoder
	in   *metered
	out  *Report
	path []string // names of the elements around, without their namespaces
	text strings.Builder
	rec  *Record // the one under way
	root bool
}

func (p *parser) run() error {
	for {
		p.in.left = maxToken
		t, err := p.dec.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("aggregate: %w", err)
		}
		if err := p.token(t); err != nil {
			return err
		}
	}
	switch {
	case len(p.path) > 0:
		return fmt.Errorf("aggregate: the report ends within <%s>", p.path[len(p.path)-1])
	case !p.root:
		return errors.New("aggregate: not a report")
	}
	return nil
}

func (p *parser) token(t xml.Token) error {
	switch t := t.(type) {
	case xml.Directive:
		return fmt.Errorf("%w: a document type", ErrUnsafe)
	case xml.StartElement:
		return p.start(cut(t.Name.Local))
	case xml.EndElement:
		n := len(p.path)
		if n == 0 || p.path[n-1] != cut(t.Name.Local) {
			return fmt.Errorf("aggregate: </%s> ends what did not begin", cut(t.Name.Local))
		}
		p.leave(strings.TrimSpace(p.text.String()))
		p.text.Reset()
		p.path = p.path[:n-1]
	case xml.CharData:
		if p.text.Len() < maxText {
			p.text.Write(t[:min(len(t), maxText)])
		}
	}
	return nil
}

func (p *parser) start(name string) error {
	switch {
	case len(p.path) == 0 && p.root:
		return errors.New("aggregate: there is something behind the report")
	case len(p.path) == 0 && !strings.EqualFold(name, "feedback"):
		return fmt.Errorf("aggregate: <%s> is no report", name)
	case len(p.path) >= maxDepth:
		return fmt.Errorf("%w: elements more than %d deep", ErrUnsafe, maxDepth)
	}
	p.root = true
	p.path = append(p.path, strings.ToLower(name))
	p.text.Reset()
	if p.is("feedback", "record") {
		if len(p.out.Records) == MaxRecords {
			return ErrTooMany
		}
		p.out.Records = append(p.out.Records, Record{})
		p.rec = &p.out.Records[len(p.out.Records)-1]
	}
	if p.rec != nil && len(p.path) == 4 && p.path[2] == "auth_results" {
		switch {
		case name == "dkim" && len(p.rec.DKIMResults) < maxResults:
			p.rec.DKIMResults = append(p.rec.DKIMResults, DKIMResult{})
		case name == "spf" && len(p.rec.SPFResults) < maxResults:
			p.rec.SPFResults = append(p.rec.SPFResults, SPFResult{})
		}
	}
	if p.rec != nil && p.is("feedback", "record", "row", "policy_evaluated", "reason") && len(p.rec.Reasons) < maxResults {
		p.rec.Reasons = append(p.rec.Reasons, Reason{})
	}
	return nil
}

func (p *parser) is(path ...string) bool { return slices.Equal(p.path, path) }

// leave takes the text of an element that ends.
func (p *parser) leave(text string) {
	text = cut(text)
	n := len(p.path)
	if n < 2 {
		return
	}
	name := p.path[n-1]
	switch p.path[1] {
	case "version":
		p.out.Version = text
	case "report_metadata":
		if n == 3 {
			p.metadata(name, text)
		}
		if n == 4 && p.path[2] == "date_range" {
			p.date(name, text)
		}
	case "policy_published":
		if n == 3 {
			p.policy(name, text)
		}
	case "record":
		if n == 2 {
			p.rec = nil
			return
		}
		p.record(name, text, n)
	}
}

func (p *parser) metadata(name, text string) {
	r := p.out
	switch name {
	case "org_name":
		r.Organization = text
	case "email":
		r.Email = text
	case "extra_contact_info":
		r.Contact = text
	case "report_id":
		r.ID = text
	case "generator":
		r.Generator = text
	case "error":
		if len(r.Errors) < maxErrors {
			r.Errors = append(r.Errors, text)
		}
	}
}

func (p *parser) date(name, text string) {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<34 { // the year 2514
		return
	}
	switch t := time.Unix(seconds, 0).UTC(); name {
	case "begin":
		p.out.Begin = t
	case "end":
		p.out.End = t
	}
}

func (p *parser) policy(name, text string) {
	d := &p.out.Policy
	text = strings.ToLower(text)
	switch name {
	case "domain":
		d.Domain = strings.TrimSuffix(text, ".")
	case "adkim":
		d.DKIMAlignment = text
	case "aspf":
		d.SPFAlignment = text
	case "p":
		d.Policy = text
	case "sp":
		d.Subdomains = text
	case "np":
		d.NonExistent = text
	case "pct":
		d.Percentage = text
	case "fo":
		d.FailureOptions = text
	case "testing":
		d.Testing = text
	case "discovery_method":
		d.DiscoveryMethod = text
	}
}

func (p *parser) record(name, text string, n int) {
	r := p.rec
	if r == nil || n < 4 {
		return
	}
	switch group := p.path[2]; {
	case group == "row" && n == 4:
		switch name {
		case "source_ip":
			if a, err := netip.ParseAddr(text); err == nil {
				r.Source = a.Unmap().WithZone("")
			}
		case "count":
			if c, err := strconv.ParseInt(text, 10, 64); err == nil && c >= 0 && c <= maxCount {
				r.Count = c
			}
		}
	case group == "row" && p.path[3] == "policy_evaluated" && n == 5:
		switch name {
		case "disposition":
			r.Disposition = strings.ToLower(text)
		case "dkim":
			r.DKIM = strings.EqualFold(text, "pass")
		case "spf":
			r.SPF = strings.EqualFold(text, "pass")
		}
	case group == "row" && n == 6 && p.path[4] == "reason" && len(r.Reasons) > 0:
		last := &r.Reasons[len(r.Reasons)-1]
		switch name {
		case "type":
			last.Type = strings.ToLower(text)
		case "comment":
			last.Comment = text
		}
	case group == "identifiers" && n == 4:
		switch name {
		case "header_from":
			r.HeaderFrom = strings.ToLower(text)
		case "envelope_from":
			r.EnvelopeFrom = strings.ToLower(text)
		case "envelope_to":
			r.EnvelopeTo = strings.ToLower(text)
		}
	case group == "auth_results" && n == 5:
		p.result(p.path[3], name, text)
	}
}

func (p *parser) result(method, name, text string) {
	r := p.rec
	switch {
	case method == "dkim" && len(r.DKIMResults) > 0:
		last := &r.DKIMResults[len(r.DKIMResults)-1]
		switch name {
		case "domain":
			last.Domain = strings.ToLower(text)
		case "selector":
			last.Selector = text
		case "result":
			last.Result = strings.ToLower(text)
		case "human_result":
			last.Text = text
		}
	case method == "spf" && len(r.SPFResults) > 0:
		last := &r.SPFResults[len(r.SPFResults)-1]
		switch name {
		case "domain":
			last.Domain = strings.ToLower(text)
		case "scope":
			last.Scope = strings.ToLower(text)
		case "result":
			last.Result = strings.ToLower(text)
		case "human_result":
			last.Text = text
		}
	}
}

// cut bounds a text, at a character.
func cut(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}
