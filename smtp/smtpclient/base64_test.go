package smtpclient_test

import "encoding/base64"

func encode64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func decode64(s string) string {
	p, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(p)
}
