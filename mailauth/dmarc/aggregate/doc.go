// Package aggregate reads DMARC aggregate reports: what a receiver tells a domain about the mail that it saw from it.
//
//	r, err := aggregate.Parse(xml)
//	for i := range r.Records { ... }
//
// Both forms are read, that of RFC 9990 and the older one of RFC 7489, and what real senders make of them: elements in any order and
// any namespace, values in any case, missing elements, Latin-1. Who writes reports is a stranger: the file is read as a
// stream, there are no entities but the five of XML, no document type, elements are not deep, and no element, text or
// list is large. Nothing is allocated for what exceeds the bounds.
//
//	RFC 9990, 3: the XML form
//	RFC 7489, appendix C: the older one
package aggregate
