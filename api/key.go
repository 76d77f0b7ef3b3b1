package api

import (
	"context"
	"net/http"
	"time"
)

// KeyList tells the keys of encryption at rest. Keys themselves are never told.
type KeyList struct {
	Sealing bool      `json:"sealing"` // what is written now is encrypted
	Master  string    `json:"master,omitempty"`
	Data    []DataKey `json:"data"` // oldest first; the last one is used for what is written now
}

// DataKey is a key that data is encrypted with. It is kept beside the data, wrapped by a master key.
type DataKey struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Master  string    `json:"master"` // id of the master key that wraps it
}

// Keys lists the keys of encryption at rest.
func (c *Client) Keys(ctx context.Context) (KeyList, error) {
	return call[KeyList](ctx, c, http.MethodGet, "/v1/keys", nil)
}

// RotateKeys has the server read its master keys again, wrap all data keys by the first of them, and use a new data key from now
// on.
func (c *Client) RotateKeys(ctx context.Context) (KeyList, error) {
	return call[KeyList](ctx, c, http.MethodPost, "/v1/keys/rotation", struct{}{})
}
