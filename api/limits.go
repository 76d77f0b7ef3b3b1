package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// LimitQuery selects what [Client.Limits] tells. The zero value asks for all.
type LimitQuery struct {
	Holder string // tenant, credential or client
	Name   string // of one holder
	All    bool   // also what is counted and not limited
	Limit  int    // holders of each kind, the latest first; 0 is 100
}

// LimitList is how much senders have used of what they may send.
type LimitList struct {
	Limits []LimitState `json:"limits"`
}

// LimitState is one limit of one sender as it stands now.
type LimitState struct {
	Holder  string     `json:"holder"` // tenant, credential, client
	Name    string     `json:"name"`
	Limit   string     `json:"limit"` // messages_per_hour and the like
	Used    int64      `json:"used"`
	Max     int64      `json:"max"`               // 0: counted and not limited
	Source  string     `json:"source,omitempty"`  // where max comes from
	Refused int64      `json:"refused,omitempty"` // messages and recipients held back since the start
	Room    *time.Time `json:"room,omitempty"`    // used up: when there will be room again
}

// Limits tells how much senders have used.
func (c *Client) Limits(ctx context.Context, q LimitQuery) (LimitList, error) {
	v := url.Values{}
	set(v, "holder", q.Holder)
	set(v, "name", q.Name)
	if q.All {
		v.Set("all", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return call[LimitList](ctx, c, http.MethodGet, "/v1/limits?"+v.Encode(), nil)
}
