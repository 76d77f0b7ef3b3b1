// Package message knows one mail message as bytes: its identity inside the server, its header as a view over the bytes
// it came in, and how a new message is put together.
//
// Reading never copies. [ParseHeader] finds the fields of a header block inside bytes that stay the caller's, and hands
// out slices of them:
//
//	h, err := message.ParseHeader(p)
//	if err != nil { ... }               // too large, or not a header at all
//	from, ok := h.Get("From")           // a slice of p
//	for f := range h.Fields() { ... }   // every field, in order, with its place in p
//
// Writing is strict. [AppendField] refuses values that could end a field and begin another one, folds long lines and
// encodes what is not ASCII; [Draft.Compose] makes a whole message of text, HTML and attachments.
//
// An [ID] names a message for the whole of its life: in the journal, in the Received field, in replies, logs and
// events. IDs sort by the time they were made.
//
// RFCs: 5322 (header, dates, addresses), 2045 to 2047 (MIME, encoded words), 2231 (parameter values), 2183
// (Content-Disposition), 6532 (UTF-8 in headers, read but not written unless asked for).
package message
