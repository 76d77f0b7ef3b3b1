package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// AuditQuery selects records of administrative acts. The zero value asks for the first 100.
type AuditQuery struct {
	After  uint64    `json:"after,omitempty"`  // records behind this index
	Since  time.Time `json:"since,omitzero"`   // not older
	Action string    `json:"action,omitempty"` // "credential.create", or its first word "credential"
	Actor  string    `json:"actor,omitempty"`
	Limit  int       `json:"limit,omitempty"` // 1 to 1000; 0 is 100
}

// AuditList is the answer to an AuditQuery, oldest first.
type AuditList struct {
	Records []AuditRecord `json:"records"`
	More    bool          `json:"more"` // there are others behind the last one
}

// AuditRecord is one administrative act on record. Each carries the hash of the one before it.
type AuditRecord struct {
	Index    uint64          `json:"index"`
	Time     time.Time       `json:"time"`
	Actor    string          `json:"actor"`
	Source   string          `json:"source"`
	Action   string          `json:"action"`
	Target   string          `json:"target,omitempty"`
	Before   json.RawMessage `json:"before,omitempty"`
	After    json.RawMessage `json:"after,omitempty"`
	Of       uint64          `json:"of,omitempty"`    // the record whose act ended like this
	Error    string          `json:"error,omitempty"` // why it failed
	Previous string          `json:"previous"`        // SHA-256, hexadecimal
	Hash     string          `json:"hash"`
}

// AuditReport says whether the chain of records is whole.
type AuditReport struct {
	First      uint64 `json:"first"`
	Last       uint64 `json:"last"`              // index up to which records are good
	Anchored   uint64 `json:"anchored"`          // index up to which a signed head vouches for them
	Anchors    int    `json:"anchors"`           // signed heads compared
	AnchorFile string `json:"anchor_file"`       // where they stand
	Key        string `json:"key,omitempty"`     // public key of their signatures, hexadecimal
	Bad        uint64 `json:"bad,omitempty"`     // the first bad index; 0: none
	Problem    string `json:"problem,omitempty"` // what is wrong with it
	Advice     string `json:"advice,omitempty"`
}

// Audit lists administrative acts.
func (c *Client) Audit(ctx context.Context, q AuditQuery) (AuditList, error) {
	v := url.Values{}
	set(v, "action", q.Action)
	set(v, "actor", q.Actor)
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	if q.After > 0 {
		v.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return call[AuditList](ctx, c, http.MethodGet, "/v1/audit?"+v.Encode(), nil)
}

// VerifyAudit has the server verify its whole chain.
func (c *Client) VerifyAudit(ctx context.Context) (AuditReport, error) {
	return call[AuditReport](ctx, c, http.MethodGet, "/v1/audit/report", nil)
}
