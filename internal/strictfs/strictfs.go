// Package strictfs is a file system for Pebble that holds rules which Pebble itself is lax about. What survives a crash
// rests on them.
//
//	db, err := pebble.Open(dir, &pebble.Options{FS: strictfs.New(vfs.Default, fail)})
package strictfs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// New returns a file system over another one.
//
// A failed sync is the end, of files and directories alike: it is never tried again, since the kernel may have
// dropped the pages and would report success. Pebble does so for its log, tries tables again, and panics for
// directories. It also panics, with its locks in disorder, when it cannot begin or end a log: that too, and any
// failed write to a log, ends the database in an orderly way.
//
// The names in a directory are durable before a marker that refers to one of them. Pebble syncs the directory once,
// after both are made; a power cut before that may keep the marker without the manifest it names, and then the database
// cannot be opened. File systems with an ordered journal do not do that, others may.
//
// fail is told of the end. It should not return: Pebble may go on as if nothing had happened. If it does, Pebble is given
// the error.
func New(fs vfs.FS, fail func(error)) vfs.FS { return strictFS{FS: fs, fail: fail} }

type strictFS struct {
	vfs.FS
	fail func(error)
}

const (
	markerPrefix = "marker."
	logSuffix    = ".log"
)

// Create makes a file as vfs.FS does. A crash before a marker is made leaves all names that were made before it.
func (fs strictFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(fs.PathBase(name), markerPrefix) {
		dir, err := fs.OpenDir(fs.PathDir(name))
		if err != nil {
			return nil, err
		}
		if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
			return nil, err
		}
	}
	return fs.wrap(name)(fs.log(name)(fs.FS.Create(name, category)))
}

// OpenReadWrite is that of vfs.FS.
func (fs strictFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return fs.wrap(name)(fs.FS.OpenReadWrite(name, category, o...))
}

// ReuseForWrite is that of vfs.FS.
func (fs strictFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return fs.wrap(newname)(fs.log(newname)(fs.FS.ReuseForWrite(oldname, newname, category)))
}

// OpenDir is that of vfs.FS.
func (fs strictFS) OpenDir(name string) (vfs.File, error) {
	return fs.wrap(name)(fs.FS.OpenDir(name))
}

// Unwrap returns the file system below.
func (fs strictFS) Unwrap() vfs.FS { return fs.FS }

// log ends the database if a log could not be made.
func (fs strictFS) log(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil && strings.HasSuffix(name, logSuffix) {
			fs.fail(fmt.Errorf("making log %s: %w", name, err))
		}
		return f, err
	}
}

func (fs strictFS) wrap(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		return strictFile{File: f, name: name, fail: fs.fail}, nil
	}
}

type strictFile struct {
	vfs.File
	name string
	fail func(error)
}

func (f strictFile) check(err error) error {
	if err != nil {
		f.fail(fmt.Errorf("syncing %s: %w", f.name, err))
	}
	return err
}

func (f strictFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if err != nil && strings.HasSuffix(f.name, logSuffix) {
		f.fail(fmt.Errorf("writing %s: %w", f.name, err))
	}
	return n, err
}

func (f strictFile) Sync() error     { return f.check(f.File.Sync()) }
func (f strictFile) SyncData() error { return f.check(f.File.SyncData()) }
func (f strictFile) SyncTo(n int64) (bool, error) {
	full, err := f.File.SyncTo(n)
	return full, f.check(err)
}
