package tagsig

import "encoding/base64"

// rawLine is how many octets one line of base64 holds.
const rawLine = 54

// AppendSignature appends a signature as base64 in lines, the last value of a field, and the field's line end.
func AppendSignature(dst, sig []byte) []byte {
	for {
		n := min(len(sig), rawLine)
		dst = base64.StdEncoding.AppendEncode(dst, sig[:n])
		if sig = sig[n:]; len(sig) == 0 {
			return append(dst, "\r\n"...)
		}
		dst = append(dst, "\r\n\t "...)
	}
}
