package tlsrpt

import "encoding/base64"

// wrapBase64 encodes p in lines of 76 characters (RFC 2045, 6.8).
func wrapBase64(p []byte) []byte {
	const octets = 57 // of a line
	out := make([]byte, 0, (len(p)/octets+1)*78)
	for len(p) > 0 {
		n := min(len(p), octets)
		out = append(base64.StdEncoding.AppendEncode(out, p[:n]), "\r\n"...)
		p = p[n:]
	}
	return out
}
