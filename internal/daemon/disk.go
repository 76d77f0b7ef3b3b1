package daemon

import "github.com/cockroachdb/pebble/v2/vfs"

// diskFS is the file system of what lies beside the journal. Where it finds no space the journal's ballast is given up,
// and the write is made once more: neither the index nor the store need end the server while the journal goes on.
func (d *Daemon) diskFS() vfs.FS { return vfs.OnDiskFull(d.o.FS, func() { d.journal.Relieve() }) }
