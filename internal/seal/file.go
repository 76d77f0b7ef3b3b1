package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// An encrypted file begins with a header of 64 octets:
//
//	 0   8  magic
//	 8   4  version
//	12   4  data key
//	16  16  salt of the file
//	32  28  zero
//	60   4  sum of the above
const (
	fileMagic  = "GWSEALED"
	fileHeader = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeFileHeader(key uint32, salt []byte) []byte {
	b := make([]byte, fileHeader)
	copy(b, fileMagic)
	binary.LittleEndian.PutUint32(b[8:], version)
	binary.LittleEndian.PutUint32(b[12:], key)
	copy(b[16:32], salt)
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// decodeFileHeader says whether b begins an encrypted file, and with what.
func decodeFileHeader(b []byte) (key uint32, salt []byte, ok bool) {
	if len(b) < fileHeader || !bytes.HasPrefix(b, []byte(fileMagic)) ||
		binary.LittleEndian.Uint32(b[8:]) != version ||
		binary.LittleEndian.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint32(b[12:]), b[16:32], true
}

// keyOfFile returns the data key of an encrypted file on the real file system.
func keyOfFile(path string) (uint32, bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	b := make([]byte, fileHeader)
	if _, err := io.ReadFull(f, b); err != nil {
		return 0, false
	}
	key, _, ok := decodeFileHeader(b)
	return key, ok
}

// FS returns a file system that encrypts the files it creates in inner, and reads those and clear ones alike. Nothing in it is
// ever written twice at one place but by writers that begin a file anew.
func (k *Keyring) FS(inner vfs.FS) vfs.FS { return &sealedFS{FS: inner, keys: k} }

type sealedFS struct {
	vfs.FS
	keys *Keyring
}

// Unwrap returns the file system below.
func (s *sealedFS) Unwrap() vfs.FS { return s.FS }

// Create begins a file. A crash may leave it without its header, and then without anything that was synced.
func (s *sealedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, category)
	if err != nil || !s.keys.Sealing() {
		return f, err
	}
	return s.begin(f, name)
}

// begin writes the header of an empty file.
func (s *sealedFS) begin(f vfs.File, name string) (vfs.File, error) {
	st := s.keys.current.Load()
	var salt [saltSize]byte
	rand.Read(salt[:]) // never fails
	if _, err := f.Write(encodeFileHeader(st.key, salt[:])); err != nil {
		return nil, errors.Join(fmt.Errorf("beginning %s: %w", name, err), f.Close())
	}
	return s.file(f, st.key, salt[:])
}

func (s *sealedFS) file(f vfs.File, key uint32, salt []byte) (vfs.File, error) {
	d := (*s.keys.table.Load())[key]
	if d == nil {
		return nil, errors.Join(fmt.Errorf("%w: data key %08x is not in %s", ErrNoMaster, key, fileName), f.Close())
	}
	block, err := aes.NewCipher(derive(d.key, salt, "godwit file 1"))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &sealedFile{File: f, block: block}, nil
}

// Open opens a file, encrypted or not.
func (s *sealedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	key, salt, ok := s.look(f)
	if !ok {
		return f, nil
	}
	sf, err := s.file(f, key, salt)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	// The next Read begins behind the header.
	if _, err := io.ReadFull(f, make([]byte, fileHeader)); err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", name, err), f.Close())
	}
	return sf, nil
}

func (s *sealedFS) look(f vfs.File) (key uint32, salt []byte, ok bool) {
	b := make([]byte, fileHeader)
	n, err := f.ReadAt(b, 0)
	if err != nil && n < len(b) {
		return 0, nil, false // short, or a directory: whatever it is, it is not ours
	}
	return decodeFileHeader(b)
}

// OpenReadWrite opens a file for both, or begins it.
func (s *sealedFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name, category, opts...)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if info.Size() == 0 {
		if !s.keys.Sealing() {
			return f, nil
		}
		return s.begin(f, name)
	}
	key, salt, ok := s.look(f)
	if !ok {
		return f, nil
	}
	sf, err := s.file(f, key, salt)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	if _, err := io.ReadFull(f, make([]byte, fileHeader)); err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", name, err), f.Close())
	}
	return sf, nil
}

// ReuseForWrite does not reuse: the old bytes would be read with the new key.
func (s *sealedFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := s.FS.Remove(oldname); err != nil {
		return nil, err
	}
	return s.Create(newname, category)
}

// Stat tells the size without the header.
func (s *sealedFS) Stat(name string) (vfs.FileInfo, error) {
	info, err := s.FS.Stat(name)
	if err != nil || info.IsDir() || info.Size() < fileHeader {
		return info, err
	}
	f, err := s.FS.Open(name)
	if err != nil {
		return info, nil
	}
	_, _, ok := s.look(f)
	if err := f.Close(); err != nil {
		return nil, err
	}
	if ok {
		return sealedInfo{info}, nil
	}
	return info, nil
}

type sealedInfo struct{ vfs.FileInfo }

func (i sealedInfo) Size() int64 { return max(i.FileInfo.Size()-fileHeader, 0) }

// sealedFile is a file behind its header, encrypted in counter mode with a key of its own: the counter is the place in units of 16
// octets.
type sealedFile struct {
	vfs.File
	block cipher.Block

	out, in position // of Write and Read, each for one caller at a time
}

// position goes on where the last call ended.
type position struct {
	off    int64
	stream cipher.Stream
}

// at returns the key stream from a place on.
func (f *sealedFile) at(off int64) cipher.Stream {
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], uint64(off)/aes.BlockSize)
	s := cipher.NewCTR(f.block, iv[:])
	if skip := int(off % aes.BlockSize); skip > 0 {
		var b [aes.BlockSize]byte
		s.XORKeyStream(b[:skip], b[:skip])
	}
	return s
}

func (f *sealedFile) next(p *position) cipher.Stream {
	if p.stream == nil {
		p.stream = f.at(p.off)
	}
	return p.stream
}

// Write encrypts p where it lies, as vfs.File allows.
func (f *sealedFile) Write(p []byte) (int, error) {
	f.next(&f.out).XORKeyStream(p, p)
	n, err := f.File.Write(p)
	f.out.off += int64(n)
	if n < len(p) {
		f.out.stream = nil
	}
	return n, err
}

// WriteAt leaves p as it is.
func (f *sealedFile) WriteAt(p []byte, off int64) (int, error) {
	b := make([]byte, len(p))
	f.at(off).XORKeyStream(b, p)
	return f.File.WriteAt(b, off+fileHeader)
}

func (f *sealedFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.next(&f.in).XORKeyStream(p[:n], p[:n])
	f.in.off += int64(n)
	return n, err
}

func (f *sealedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off+fileHeader)
	if n > 0 {
		f.at(off).XORKeyStream(p[:n], p[:n])
	}
	return n, err
}

func (f *sealedFile) Preallocate(off, length int64) error {
	return f.File.Preallocate(off+fileHeader, length)
}

func (f *sealedFile) SyncTo(length int64) (bool, error) { return f.File.SyncTo(length + fileHeader) }

func (f *sealedFile) Prefetch(off, length int64) error {
	return f.File.Prefetch(off+fileHeader, length)
}

func (f *sealedFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return sealedInfo{info}, nil
}

// Fd hides the descriptor: what is read through it is not clear.
func (f *sealedFile) Fd() uintptr { return vfs.InvalidFd }
