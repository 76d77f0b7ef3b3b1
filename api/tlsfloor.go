package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// TLSFloor is a mail host that had TLS on several days and was never without: mail does not leave to it in the clear
// without a wait.
type TLSFloor struct {
	Host  string    `json:"host"`
	Days  int       `json:"days"`  // different days with TLS, counted up to the number that makes a floor
	Since time.Time `json:"since"` // first session over TLS
	Last  time.Time `json:"last"`  // last day's first one
	// Missing is since when TLS is gone, nil if it is there; Why is what was found instead.
	Missing *time.Time `json:"missing,omitempty"`
	Why     string     `json:"why,omitempty"`
}

// TLSFloorList is hosts in the order of their names.
type TLSFloorList struct {
	Floors []TLSFloor `json:"floors"`
}

// TLSFloorSelection says which hosts to forget: one by its name, or all.
type TLSFloorSelection struct {
	Host string `json:"host,omitempty"`
	All  bool   `json:"all,omitempty"`
}

// TLSFloors lists the hosts that have a floor; with all, those too that are still being learnt.
func (c *Client) TLSFloors(ctx context.Context, all bool) (TLSFloorList, error) {
	v := url.Values{}
	if all {
		v.Set("all", "true")
	}
	return call[TLSFloorList](ctx, c, http.MethodGet, "/v1/tls/floors?"+v.Encode(), nil)
}

// ResetTLSFloors forgets hosts, which are learnt anew, and returns what was known of them.
func (c *Client) ResetTLSFloors(ctx context.Context, s TLSFloorSelection) (TLSFloorList, error) {
	return call[TLSFloorList](ctx, c, http.MethodPost, "/v1/tls/floors/reset", s)
}
