package enclosure

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
)

// What callers branch on.
var (
	ErrNone     = errors.New("there is no report in it")
	ErrTooLarge = errors.New("it is larger than a report may be")
)

// Format is what a document looks like by its first octets.
type Format string

// The formats of reports.
const (
	XML  Format = "xml"
	JSON Format = "json"
)

// Document is one report, as a stream of its octets. It is valid until the function it was handed to returns.
type Document struct {
	Name   string // of the file, as far as it has one; at most 255 octets
	Format Format
	io.Reader
}

// Limits bound what is read. The zero value of each means its default.
type Limits struct {
	Message   int64 // octets of a message or file that are looked at; 50 MiB
	Archive   int64 // octets of a zip archive, which is kept in memory; 5 MiB
	Unpacked  int64 // octets of all documents together, after decompression; 20 MiB
	Parts     int   // parts of a message, those that hold parts included; 100
	Depth     int   // of parts in parts; 10
	Documents int   // 10
}

func (l *Limits) fill() {
	set := func(p *int64, v int64) {
		if *p <= 0 {
			*p = v
		}
	}
	set(&l.Message, 50<<20)
	set(&l.Archive, 5<<20)
	set(&l.Unpacked, 20<<20)
	for p, v := range map[*int]int{&l.Parts: 100, &l.Depth: 10, &l.Documents: 10} {
		if *p <= 0 {
			*p = v
		}
	}
}

// finder counts what is found against the limits.
type finder struct {
	limits    Limits
	visit     func(*Document) error
	parts     int
	documents int
}

// FromFile hands the documents in a file to visit: XML or JSON, as it is or in gzip or zip; a mail message too, if it looks like one.
// The error is that of visit, ErrNone, ErrTooLarge, or says what is wrong with the file.
func FromFile(name string, r io.Reader, limits Limits, visit func(*Document) error) error {
	limits.fill()
	f := &finder{limits: limits, visit: visit}
	br := bufio.NewReaderSize(&bounded{r: r, left: &f.limits.Message}, sniffed)
	known, err := f.unpack(name, br, 0)
	if err != nil {
		return err
	}
	if !known {
		if err := f.entity(br, 0); err != nil {
			return err
		}
	}
	return f.end()
}

// FromMessage hands the documents in a mail message to visit. Errors are as for FromFile.
func FromMessage(r io.Reader, limits Limits, visit func(*Document) error) error {
	limits.fill()
	f := &finder{limits: limits, visit: visit}
	if err := f.entity(bufio.NewReaderSize(&bounded{r: r, left: &f.limits.Message}, sniffed), 0); err != nil {
		return err
	}
	return f.end()
}

func (f *finder) end() error {
	if f.documents == 0 {
		return ErrNone
	}
	return nil
}

// sniffed is how many octets are looked at to tell what a file is.
const sniffed = 4096

// kind is what a file begins like.
type kind uint8

const (
	other kind = iota
	gzipped
	zipped
	xmlText
	jsonText
)

func sniff(p []byte) kind {
	switch {
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b}):
		return gzipped
	case bytes.HasPrefix(p, []byte("PK\x03\x04")):
		return zipped
	}
	p = bytes.TrimLeft(bytes.TrimPrefix(p, []byte("\ufeff")), " \t\r\n")
	switch {
	case bytes.HasPrefix(p, []byte("<?xml")), bytes.HasPrefix(p, []byte("<feedback")), bytes.HasPrefix(p, []byte("<!--")):
		return xmlText
	case bytes.HasPrefix(p, []byte("{")):
		return jsonText
	}
	return other
}

// maxPacked is how deep archives may lie in each other: some senders put a gzip file into a zip archive.
const maxPacked = 2

// unpack hands what r holds to visit if it is a document or holds some, and reports whether it is something of that kind.
func (f *finder) unpack(name string, r *bufio.Reader, depth int) (bool, error) {
	head, err := r.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch k := sniff(head); k {
	case gzipped, zipped:
		if depth >= maxPacked {
			return true, fmt.Errorf("archives lie in each other more than %d deep: %w", maxPacked, ErrTooLarge)
		}
		if k == gzipped {
			return true, f.gunzip(name, r, depth)
		}
		return true, f.unzip(r, depth)
	case xmlText:
		return true, f.document(name, XML, r, depth)
	case jsonText:
		return true, f.document(name, JSON, r, depth)
	}
	return false, nil
}

func (f *finder) document(name string, format Format, r io.Reader, depth int) error {
	if f.documents++; f.documents > f.limits.Documents {
		return fmt.Errorf("more than %d documents: %w", f.limits.Documents, ErrTooLarge)
	}
	if depth == 0 { // what was not packed counts as unpacked all the same
		r = f.counted(r)
	}
	return f.visit(&Document{Name: cut(name), Format: format, Reader: r})
}

// counted reads r against the limit on what is unpacked.
func (f *finder) counted(r io.Reader) io.Reader { return &bounded{r: r, left: &f.limits.Unpacked} }

func (f *finder) gunzip(name string, r *bufio.Reader, depth int) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("gzip: %w", err)
	}
	defer z.Close()
	if z.Name != "" {
		name = z.Name
	}
	_, err = f.unpack(strings.TrimSuffix(name, ".gz"), bufio.NewReaderSize(f.counted(z), sniffed), depth+1)
	return err
}

func (f *finder) unzip(r io.Reader, depth int) error {
	p, err := io.ReadAll(io.LimitReader(r, f.limits.Archive+1))
	if err != nil {
		return err
	}
	if int64(len(p)) > f.limits.Archive {
		return fmt.Errorf("zip archive of more than %d octets: %w", f.limits.Archive, ErrTooLarge)
	}
	z, err := zip.NewReader(bytes.NewReader(p), int64(len(p)))
	if err != nil {
		return fmt.Errorf("zip: %w", err)
	}
	if n := len(z.File); n > f.limits.Documents {
		return fmt.Errorf("zip archive of %d files: %w", n, ErrTooLarge)
	}
	for _, file := range z.File {
		if file.FileInfo().IsDir() {
			continue
		}
		if err := f.zipped(file, depth); err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) zipped(file *zip.File, depth int) error {
	r, err := file.Open()
	if err != nil {
		return fmt.Errorf("zip: %w", err)
	}
	defer r.Close()
	_, err = f.unpack(file.Name, bufio.NewReaderSize(f.counted(r), sniffed), depth+1)
	return err
}

// bounded reads until left is used up, which readers may share; then it fails.
type bounded struct {
	r    io.Reader
	left *int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if *b.left <= 0 {
		// Whether there is more decides between the end and too much.
		var one [1]byte
		n, err := b.r.Read(one[:])
		if n > 0 {
			return 0, ErrTooLarge
		}
		return 0, err
	}
	n, err := b.r.Read(p[:min(int64(len(p)), *b.left)])
	*b.left -= int64(n)
	return n, err
}

// cut bounds a name that a stranger chose.
func cut(name string) string {
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	return strings.ToValidUTF8(name[:min(len(name), 255)], "?")
}
