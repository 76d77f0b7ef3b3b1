package daemon

import (
	"context"
	"net/http"

	"github.com/godwit-mta/godwit/api"
)

// Keys answers the administrators' interface.
func (a *admin) Keys(context.Context) (api.KeyList, error) {
	return api.KeyList{Data: []api.DataKey{}}, nil
}

// RotateKeys answers the administrators' interface.
func (a *admin) RotateKeys(context.Context) (api.KeyList, error) {
	return api.KeyList{}, &api.Problem{Status: http.StatusConflict, Title: "Encryption is off",
		Detail: "nothing is encrypted: make a key with \"godwit key create FILE\" and set encryption.key_file"}
}
