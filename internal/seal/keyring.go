package seal

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Names in the data directory.
const (
	fileName = "keys.json"
	copyName = "keys.copy.json"
)

// ErrNoMaster says that data is encrypted and its master key was not given, or is another one.
var ErrNoMaster = errors.New("the master key is missing")

// Options say how to open a Keyring.
type Options struct {
	Dir     string   // data directory, with keys.json in it
	Masters []Master // the one that wraps first; at least one
	Seal    bool     // encrypt what is written; otherwise only open what is encrypted already
}

// Keyring holds the data keys of one data directory. It is safe for concurrent use.
type Keyring struct {
	dir  string
	seal bool

	mu      sync.Mutex // guards keys and master, and is held while keys.json is written: nobody else waits for it
	keys    []*dataKey // oldest first
	master  string
	table   atomic.Pointer[map[uint32]*dataKey]
	current atomic.Pointer[stream] // for new records; nil: not sealing

	streams sync.Map // streamID -> cipher.AEAD: of records written by this process and others
}

// dataKey is a key in memory and as keys.json has it.
type dataKey struct {
	ID      uint32    `json:"id"`
	Created time.Time `json:"created"`
	Master  string    `json:"master"`
	Wrapped []byte    `json:"wrapped"`

	key []byte
}

func (k *dataKey) about() string { return fmt.Sprintf("godwit data key 1 %08x", k.ID) }

type keyFile struct {
	Version int        `json:"version"`
	Keys    []*dataKey `json:"keys"`
}

const fileVersion = 1

// Open unwraps the data keys of a directory, or makes the first one. With a wrong master key, or none of those that were
// given when the data was written, it returns ErrNoMaster, which says the id of the key that is wanted; nothing is changed then.
func Open(o Options) (*Keyring, error) {
	if len(o.Masters) == 0 {
		return nil, fmt.Errorf("encryption: %w", ErrNoMaster)
	}
	k := &Keyring{dir: o.Dir, seal: o.Seal, master: o.Masters[0].id}
	keys, err := readKeys(o.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := refuseOrphans(o.Dir); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	for _, d := range keys {
		if err := d.open(o.Masters); err != nil {
			return nil, err
		}
	}
	k.keys = keys
	if len(keys) == 0 && o.Seal {
		if err := k.rotate(o.Masters[0]); err != nil {
			return nil, err
		}
	}
	k.publish()
	return k, nil
}

// Check returns ErrNoMaster if the data of a directory is encrypted: for servers to which no master key is given.
func Check(dir string) error {
	keys, err := readKeys(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return refuseOrphans(dir)
	}
	if err != nil || len(keys) == 0 {
		return err
	}
	return fmt.Errorf("%s is encrypted; %w: set encryption.key_file or key_command to master key %s", dir, ErrNoMaster,
		keys[len(keys)-1].Master)
}

func (k *dataKey) open(masters []Master) error {
	i := slices.IndexFunc(masters, func(m Master) bool { return m.id == k.Master })
	if i < 0 {
		return fmt.Errorf("encryption: %w: data key %08x was wrapped by master key %s, given is %s", ErrNoMaster, k.ID, k.Master,
			masters[0].id)
	}
	var err error
	if k.key, err = masters[i].unwrap(k.Wrapped, k.about()); err != nil || len(k.key) != keySize {
		return fmt.Errorf("encryption: data key %08x in %s is damaged: put the file back from a backup", k.ID, fileName)
	}
	return nil
}

// readKeys reads keys.json, or its copy if that is gone or damaged.
func readKeys(dir string) ([]*dataKey, error) {
	keys, err := readKeyFile(filepath.Join(dir, fileName))
	if err == nil {
		return keys, nil
	}
	if other, e := readKeyFile(filepath.Join(dir, copyName)); e == nil {
		return other, nil
	} else if errors.Is(err, fs.ErrNotExist) && !errors.Is(e, fs.ErrNotExist) {
		return nil, e
	}
	return nil, err
}

func readKeyFile(path string) ([]*dataKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("encryption: %w", err)
	}
	var f keyFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("encryption: %s is damaged: %w", path, err)
	}
	if f.Version != fileVersion {
		return nil, fmt.Errorf("encryption: %s has version %d, this program knows %d", path, f.Version, fileVersion)
	}
	return f.Keys, nil
}

// refuseOrphans keeps a directory from getting new keys while it holds data that lost ones have encrypted.
func refuseOrphans(dir string) error {
	for _, sub := range []string{"store", "index"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("encryption: %w", err)
		}
		for _, e := range entries {
			if id, ok := keyOfFile(filepath.Join(dir, sub, e.Name())); ok {
				return fmt.Errorf("encryption: %w: %s was encrypted with data key %08x, but %s is gone: put it back from a backup",
					ErrNoMaster, filepath.Join(dir, sub, e.Name()), id, filepath.Join(dir, fileName))
			}
		}
	}
	return nil
}

// rotate adds a data key, wraps all by m, and writes them. mu is held, or nobody else has k yet.
func (k *Keyring) rotate(m Master) error {
	next := &dataKey{Created: time.Now().UTC().Truncate(time.Second), key: make([]byte, keySize)}
	rand.Read(next.key) // never fails
	for next.ID == 0 || slices.ContainsFunc(k.keys, func(d *dataKey) bool { return d.ID == next.ID }) {
		var id [4]byte
		rand.Read(id[:])
		next.ID = binary.LittleEndian.Uint32(id[:])
	}
	keys := make([]*dataKey, 0, len(k.keys)+1)
	for _, d := range append(slices.Clone(k.keys), next) {
		w := &dataKey{ID: d.ID, Created: d.Created, Master: m.id, key: d.key}
		w.Wrapped = m.wrap(w.key, w.about())
		keys = append(keys, w)
	}
	if err := writeKeys(k.dir, keys); err != nil {
		return err
	}
	k.keys, k.master = keys, m.id
	return nil
}

// publish makes what keys say the truth for all others. mu is held, or nobody else has k yet.
func (k *Keyring) publish() {
	table := make(map[uint32]*dataKey, len(k.keys))
	for _, d := range k.keys {
		table[d.ID] = d
	}
	k.table.Store(&table)
	if k.seal && len(k.keys) > 0 {
		k.current.Store(k.newStream(k.keys[len(k.keys)-1]))
	}
}

// Rotate wraps all data keys by the first of masters and uses a new data key for what is written from now on. What was written
// before stays as it is and readable. A crash leaves the old keys or the new ones, and nothing that only lost ones can open.
func (k *Keyring) Rotate(masters []Master) error {
	if len(masters) == 0 {
		return fmt.Errorf("encryption: %w", ErrNoMaster)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.rotate(masters[0]); err != nil {
		return err
	}
	k.publish()
	return nil
}

// Info tells of a data key.
type Info struct {
	ID      uint32
	Created time.Time
	Master  string // id of the master key that wraps it
}

// List returns the data keys, oldest first.
func (k *Keyring) List() []Info {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]Info, len(k.keys))
	for i, d := range k.keys {
		list[i] = Info{ID: d.ID, Created: d.Created, Master: d.Master}
	}
	return list
}

// Master returns the id of the master key in use.
func (k *Keyring) Master() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.master
}

// Sealing says that what is written is encrypted.
func (k *Keyring) Sealing() bool { return k.current.Load() != nil }

// writeKeys replaces both files, the copy last. A crash leaves each old or new.
func writeKeys(dir string, keys []*dataKey) error {
	data, err := json.MarshalIndent(keyFile{Version: fileVersion, Keys: keys}, "", "  ")
	if err != nil {
		return fmt.Errorf("encryption: %w", err)
	}
	for _, name := range []string{fileName, copyName} {
		path := filepath.Join(dir, name)
		f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("encryption: %w", err)
		}
		_, err = f.Write(append(data, '\n'))
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("encryption: %w", err)
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			return fmt.Errorf("encryption: %w", err)
		}
		d, err := os.Open(dir)
		if err != nil {
			return fmt.Errorf("encryption: %w", err)
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return fmt.Errorf("encryption: %w", err)
		}
	}
	return nil
}

// saltSize is what tells the streams of one data key apart.
const saltSize = 16

type streamID struct {
	key  uint32
	salt [saltSize]byte
}

// stream is one process's use of one data key: a key derived for it alone, whose nonces are counted.
type stream struct {
	streamID
	aead    cipher.AEAD
	counter atomic.Uint64
}

func (k *Keyring) newStream(d *dataKey) *stream {
	s := &stream{streamID: streamID{key: d.ID}}
	rand.Read(s.salt[:]) // never fails
	s.aead = gcm(derive(d.key, s.salt[:], "godwit record 1"))
	k.streams.Store(s.streamID, s.aead)
	return s
}

// aead returns the cipher of a stream that this process or another one wrote.
func (k *Keyring) aead(id streamID) (cipher.AEAD, error) {
	if a, ok := k.streams.Load(id); ok {
		return a.(cipher.AEAD), nil
	}
	d := (*k.table.Load())[id.key]
	if d == nil {
		return nil, fmt.Errorf("%w: data key %08x is not in %s", ErrNoMaster, id.key, fileName)
	}
	a := gcm(derive(d.key, id.salt[:], "godwit record 1"))
	k.streams.Store(id, a)
	return a, nil
}

// Load opens the keyring of a directory by what a configuration says: nil if nothing is encrypted and nothing is to be.
func Load(ctx context.Context, dir, file string, command []string, sealing bool) (*Keyring, error) {
	if file == "" && len(command) == 0 {
		return nil, Check(dir)
	}
	masters, err := LoadMasters(ctx, file, command)
	if err != nil {
		return nil, err
	}
	return Open(Options{Dir: dir, Masters: masters, Seal: sealing})
}
