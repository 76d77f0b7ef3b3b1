package daemon

import (
	"context"
	"fmt"
	"net/http"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/journal"
	"github.com/godwit-mta/godwit/internal/outbox"
	"github.com/godwit-mta/godwit/internal/seal"
)

// OpenKeys opens the keys that the data of a configuration is encrypted with: nil if nothing is encrypted and nothing is to be. It
// comes before all else that looks into the data directory, so that with a wrong key nothing is taken for damaged.
func OpenKeys(ctx context.Context, cfg *config.Config) (*seal.Keyring, error) {
	e := &cfg.Encryption
	return seal.Load(ctx, cfg.DataDir, e.KeyFile, e.KeyCommand, e.Seal)
}

// Sealer returns keys as the journal takes them; no keys are no sealer.
func Sealer(keys *seal.Keyring) journal.Sealer {
	if keys == nil {
		return nil
	}
	return keys
}

// SealedFS returns the file system of the databases above fs, which is the real one if it is nil.
func SealedFS(keys *seal.Keyring, fs vfs.FS) vfs.FS {
	if fs == nil {
		fs = vfs.Default
	}
	if keys == nil {
		return fs
	}
	return keys.FS(fs)
}

// eventSealer returns keys as the event log takes them.
func eventSealer(keys *seal.Keyring) outbox.Sealer {
	if keys == nil {
		return nil
	}
	return keys
}

// Keys answers the administrators' interface.
func (a *admin) Keys(context.Context) (api.KeyList, error) {
	out := api.KeyList{Data: []api.DataKey{}}
	k := a.d.keys
	if k == nil {
		return out, nil
	}
	out.Sealing, out.Master = k.Sealing(), k.Master()
	for _, i := range k.List() {
		out.Data = append(out.Data, api.DataKey{ID: fmt.Sprintf("%08x", i.ID), Created: i.Created, Master: i.Master})
	}
	return out, nil
}

// RotateKeys answers the administrators' interface.
func (a *admin) RotateKeys(ctx context.Context) (api.KeyList, error) {
	k, e := a.d.keys, &a.d.o.Config.Encryption
	if k == nil || !k.Sealing() {
		return api.KeyList{}, &api.Problem{Status: http.StatusConflict, Title: "Encryption is off",
			Detail: "nothing is encrypted: make a key with \"godwit key create FILE\", set encryption.key_file, and restart"}
	}
	masters, err := seal.LoadMasters(ctx, e.KeyFile, e.KeyCommand)
	if err != nil {
		return api.KeyList{}, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "No master key", Detail: err.Error()}
	}
	if err := k.Rotate(masters); err != nil {
		return api.KeyList{}, err
	}
	a.d.log.InfoContext(ctx, "new data key", "master", k.Master(), "data_keys", len(k.List()))
	return a.Keys(ctx)
}
