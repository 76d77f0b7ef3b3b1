// Package authres writes and recognises Authentication-Results fields (RFC 8601): what a receiver found out about who a message is
// from, for those behind it.
//
//	field, err := authres.Append(nil, "mx.example.net", []authres.Result{
//		{Method: "spf", Value: "pass", Properties: []authres.Property{{"smtp", "mailfrom", "ann@example.com"}}},
//	})
//
// Whoever reads such a field trusts it by the name at its begin. So a receiver removes those that bear its own name from what
// comes in: Forged finds them (RFC 8601, 5).
package authres
