package certs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/godwit-mta/godwit/internal/store"
)

// storage lets the ACME library keep its files in the store, each as one key. A value begins with the time of its writing.
// Writes are durable when they return, so a crash never costs a certificate that the authority has counted.
//
// Locks are held in memory: a store belongs to one process, and what a crashed one had locked is free again.
type storage struct {
	store store.Store

	mu struct {
		sync.Mutex
		locks map[string]chan struct{} // closed when it is released
	}
}

var _ certmagic.Storage = (*storage)(nil)

const (
	acmePrefix = "acme/"
	timeBytes  = 8
)

func newStorage(s store.Store) *storage {
	st := &storage{store: s}
	st.mu.locks = make(map[string]chan struct{})
	return st
}

func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	var b store.Batch
	data := binary.BigEndian.AppendUint64(make([]byte, 0, timeBytes+len(value)), uint64(time.Now().UnixNano()))
	b.Put(acmePrefix+key, append(data, value...))
	_, err := s.store.Apply(ctx, &b)
	return err
}

func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	kv, err := s.get(ctx, key)
	if err != nil {
		return nil, err
	}
	return kv[timeBytes:], nil
}

func (s *storage) get(ctx context.Context, key string) ([]byte, error) {
	kv, err := s.store.Get(ctx, acmePrefix+key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, fmt.Errorf("certs: %s: %w", key, fs.ErrNotExist)
	case err != nil:
		return nil, err
	case len(kv.Value) < timeBytes:
		return nil, fmt.Errorf("certs: value of %s is broken", key)
	}
	return kv.Value, nil
}

// Delete deletes a key, and all keys below it as if it were a directory.
func (s *storage) Delete(ctx context.Context, key string) error {
	var b store.Batch
	for kv, err := range s.store.Scan(ctx, acmePrefix+key) {
		if err != nil {
			return err
		}
		if name := strings.TrimPrefix(kv.Key, acmePrefix); name == key || strings.HasPrefix(name, key+"/") {
			b.Delete(kv.Key)
		}
	}
	_, err := s.store.Apply(ctx, &b)
	return err
}

func (s *storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List returns the keys below path: with recursive all that have a value and the directories between, else those one
// level down.
func (s *storage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	prefix := strings.TrimSuffix(path, "/")
	if prefix != "" {
		prefix += "/"
	}
	var list []string
	seen := make(map[string]bool)
	for kv, err := range s.store.Scan(ctx, acmePrefix+prefix) {
		if err != nil {
			return nil, err
		}
		rest := strings.TrimPrefix(kv.Key, acmePrefix+prefix)
		for i := range len(rest) + 1 {
			if i < len(rest) && rest[i] != '/' {
				continue
			}
			if name := prefix + rest[:i]; !seen[name] {
				seen[name] = true
				list = append(list, name)
			}
			if !recursive {
				break
			}
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("certs: %s: %w", path, fs.ErrNotExist)
	}
	return list, nil
}

func (s *storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	value, err := s.get(ctx, key)
	if err == nil {
		return certmagic.KeyInfo{
			Key: key, Modified: time.Unix(0, int64(binary.BigEndian.Uint64(value))), Size: int64(len(value) - timeBytes), IsTerminal: true,
		}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return certmagic.KeyInfo{}, err
	}
	for _, err := range s.store.Scan(ctx, acmePrefix+strings.TrimSuffix(key, "/")+"/") {
		if err != nil {
			return certmagic.KeyInfo{}, err
		}
		return certmagic.KeyInfo{Key: key}, nil
	}
	return certmagic.KeyInfo{}, err
}

func (s *storage) Lock(ctx context.Context, name string) error {
	for {
		s.mu.Lock()
		held, ok := s.mu.locks[name]
		if !ok {
			s.mu.locks[name] = make(chan struct{})
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *storage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.mu.locks[name]
	if !ok {
		return fmt.Errorf("certs: %s is not locked", name)
	}
	delete(s.mu.locks, name)
	close(held)
	return nil
}
