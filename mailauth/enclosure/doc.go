// Package enclosure finds reports in what they come in: mail messages (RFC 2045, 2046), gzip (RFC 1952) and zip files, and files of
// their own. It knows nothing of what a report says; packages tlsrpt and aggregate read them.
//
//	err := enclosure.FromMessage(body, enclosure.Limits{}, func(d *enclosure.Document) error {
//		switch d.Format {
//		case enclosure.JSON: report, err = tlsrpt.Parse(d)
//		case enclosure.XML:  report, err = aggregate.Parse(d)
//		}
//		return err
//	})
//
// What comes in is written by strangers. Everything is read as a stream and counted: parts, their depth, the octets of a message, of
// an archive, and of all that is unpacked ([Limits]); what exceeds a limit is [ErrTooLarge], and no more memory is taken for it
// than for a report that does not. What a part says of its own type is believed less than its first octets, since
// senders name types and files as they like.
package enclosure
