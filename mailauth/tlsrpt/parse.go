package tlsrpt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Bounds on what is read of one report.
const (
	MaxPolicies = 10_000
	MaxFailures = 50_000 // of all policies together
	MaxStrings  = 50_000 // of policies and hosts, all together
	maxText     = 1000   // octets kept of one text
)

// ErrTooMany says that a report has more parts than are read.
var ErrTooMany = errors.New("tlsrpt: the report has too many parts")

// Parse reads a report, decompressed, as a stream. It does not bound the octets of r. A count that is missing, below zero or no
// number is zero; texts are cut to 1000 octets. The error says that it is no such report.
func Parse(r io.Reader) (*Report, error) {
	p := parser{dec: json.NewDecoder(r)}
	p.dec.UseNumber()
	out := new(Report)
	known := 0
	err := p.object(func(key string) error {
		known++
		switch key {
		case "organization-name":
			return p.text(&out.Organization)
		case "contact-info":
			return p.text(&out.Contact)
		case "report-id":
			return p.text(&out.ID)
		case "date-range":
			return p.object(func(key string) error {
				switch key {
				case "start-datetime":
					return p.time(&out.Range.Start)
				case "end-datetime":
					return p.time(&out.Range.End)
				}
				return p.skip()
			})
		case "policies":
			return p.array(func() error {
				if len(out.Policies) == MaxPolicies {
					return ErrTooMany
				}
				out.Policies = append(out.Policies, Policy{})
				return p.policy(&out.Policies[len(out.Policies)-1])
			})
		}
		known--
		return p.skip()
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("tlsrpt: %w", err)
	case known == 0:
		return nil, errors.New("tlsrpt: not a report")
	case out.ID == "" && out.Organization == "":
		return nil, errors.New("tlsrpt: the report says neither who made it nor its id")
	case out.Range.Start.IsZero() || out.Range.End.Before(out.Range.Start):
		return nil, errors.New("tlsrpt: the report says not what time it is about")
	}
	return out, nil
}

type parser struct {
	dec      *json.Decoder
	failures int
	strings  int
}

func (p *parser) policy(out *Policy) error {
	return p.object(func(key string) error {
		switch key {
		case "policy":
			return p.object(func(key string) error {
				switch key {
				case "policy-type":
					return p.text((*string)(&out.Policy.Type))
				case "policy-domain":
					return p.text(&out.Policy.Domain)
				case "policy-string":
					return p.texts(&out.Policy.Strings)
				case "mx-host", "mx-host-pattern":
					return p.texts(&out.Policy.Hosts)
				}
				return p.skip()
			})
		case "summary":
			return p.object(func(key string) error {
				switch key {
				case "total-successful-session-count":
					return p.count(&out.Summary.Successful)
				case "total-failure-session-count":
					return p.count(&out.Summary.Failed)
				}
				return p.skip()
			})
		case "failure-details":
			return p.array(func() error {
				if p.failures++; p.failures > MaxFailures {
					return ErrTooMany
				}
				out.Failures = append(out.Failures, Failure{})
				return p.failure(&out.Failures[len(out.Failures)-1])
			})
		}
		return p.skip()
	})
}

func (p *parser) failure(f *Failure) error {
	return p.object(func(key string) error {
		switch key {
		case "result-type":
			return p.text((*string)(&f.Type))
		case "sending-mta-ip":
			return p.text(&f.SendingIP)
		case "receiving-mx-hostname":
			return p.text(&f.Host)
		case "receiving-mx-helo":
			return p.text(&f.Hello)
		case "receiving-ip":
			return p.text(&f.ReceivingIP)
		case "failed-session-count":
			return p.count(&f.Sessions)
		case "additional-information":
			return p.text(&f.Information)
		case "failure-reason-code":
			return p.text(&f.Reason)
		}
		return p.skip()
	})
}

// object calls each for every key of the object that comes next; each reads the value. null is an object without keys.
func (p *parser) object(each func(key string) error) error {
	ok, err := p.open('{')
	if !ok || err != nil {
		return err
	}
	for p.dec.More() {
		t, err := p.dec.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string) // of an object nothing else is a key
		if err := each(key); err != nil {
			return err
		}
	}
	_, err = p.dec.Token()
	return err
}

// array calls each for every element of the array that comes next. null is an empty one.
func (p *parser) array(each func() error) error {
	ok, err := p.open('[')
	if !ok || err != nil {
		return err
	}
	for p.dec.More() {
		if err := each(); err != nil {
			return err
		}
	}
	_, err = p.dec.Token()
	return err
}

func (p *parser) open(want json.Delim) (bool, error) {
	t, err := p.dec.Token()
	switch {
	case err != nil:
		return false, err
	case t == nil:
		return false, nil
	case t != want:
		return false, fmt.Errorf("%v stands where %v begins", brief(t), want)
	}
	return true, nil
}

func brief(t json.Token) string { return cutText(fmt.Sprint(t)) }

// skip passes over the value that comes next, a token at a time.
func (p *parser) skip() error {
	for depth := 0; ; {
		t, err := p.dec.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > 100 {
				return ErrTooMany
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// scalar reads a string, number, true, false or null as text.
func (p *parser) scalar() (string, error) {
	t, err := p.dec.Token()
	switch v := t.(type) {
	case string:
		return v, err
	case json.Number:
		return v.String(), err
	case bool:
		return strconv.FormatBool(v), err
	case json.Delim:
		return "", fmt.Errorf("%v stands where a text belongs", v)
	}
	return "", err
}

func (p *parser) text(out *string) error {
	s, err := p.scalar()
	*out = cutText(s)
	return err
}

// texts reads a list of strings, or a string that stands for a list of one: the examples of RFC 8460 have both (erratum 6241).
func (p *parser) texts(out *[]string) error {
	add := func(s string) error {
		if p.strings++; p.strings > MaxStrings {
			return ErrTooMany
		}
		*out = append(*out, cutText(s))
		return nil
	}
	t, err := p.dec.Token()
	if err != nil {
		return err
	}
	switch v := t.(type) {
	case nil:
		return nil
	case string:
		return add(v)
	case json.Delim:
		if v != '[' {
			break
		}
		for p.dec.More() {
			s, err := p.scalar()
			if err != nil {
				return err
			}
			if err := add(s); err != nil {
				return err
			}
		}
		_, err := p.dec.Token()
		return err
	}
	return fmt.Errorf("%v stands where a list of texts belongs", brief(t))
}

func (p *parser) count(out *int64) error {
	s, err := p.scalar()
	n, bad := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if bad != nil || n < 0 || n > maxCount {
		n = 0
	}
	*out = n
	return err
}

// maxCount is the largest count that is believed; sums of many of them stay numbers.
const maxCount = 1 << 48

// time reads a time of RFC 3339, or one without a zone, which Microsoft writes and means as UTC.
func (p *parser) time(out *time.Time) error {
	s, err := p.scalar()
	if err != nil {
		return err
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, strings.TrimSpace(s)); err == nil {
			*out = t.UTC()
			return nil
		}
	}
	return fmt.Errorf("%q is no time", cutText(s))
}

// cutText bounds a text, at a character.
func cutText(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}
