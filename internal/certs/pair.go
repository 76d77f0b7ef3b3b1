package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// pair is a certificate and its key from files. refresh is called by one goroutine at a time.
type pair struct {
	files   Pair
	current atomic.Pointer[tls.Certificate] // with Leaf
	seen    [2]stamp                        // of the files when they were last read
	content [sha256.Size]byte               // of the pair in use
	trouble trouble
}

// stamp tells whether a file may have changed.
type stamp struct {
	size     int64
	modified time.Time
	info     os.FileInfo // for os.SameFile: a file that was moved into the place of another
}

func stampOf(file string) stamp {
	info, err := os.Stat(file)
	if err != nil {
		return stamp{size: -1}
	}
	return stamp{info.Size(), info.ModTime(), info}
}

func (s stamp) same(t stamp) bool {
	return s.size == t.size && s.modified.Equal(t.modified) && (s.info == nil) == (t.info == nil) &&
		(s.info == nil || os.SameFile(s.info, t.info))
}

// trouble is what is wrong with the latest content of files.
type trouble struct {
	mu    sync.Mutex
	err   error
	since time.Time
}

// set notes err and reports whether it is news.
func (t *trouble) set(err error) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.err = nil
	case t.err == nil || t.err.Error() != err.Error():
		if t.err == nil {
			t.since = time.Now()
		}
		t.err, news = err, true
	}
	return news
}

func (t *trouble) get() (since time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.since, t.err
}

func openPair(files Pair) (*pair, error) {
	p := &pair{files: files}
	p.look()
	cert, sum, err := loadPair(files)
	if err != nil {
		return nil, err
	}
	p.current.Store(cert)
	p.content = sum
	return p, nil
}

// look stamps the files; it reports whether they seem to have changed.
func (p *pair) look() bool {
	now := [2]stamp{stampOf(p.files.Certificate), stampOf(p.files.Key)}
	changed := !now[0].same(p.seen[0]) || !now[1].same(p.seen[1])
	p.seen = now
	return changed
}

// refresh takes over what the files hold now. changed tells that something new is in use or, with an error, that the error
// is new.
func (p *pair) refresh(all bool) (changed bool, err error) {
	if !p.look() && !all {
		_, err := p.trouble.get()
		return false, err
	}
	cert, sum, err := loadPair(p.files)
	if err == nil {
		if sum == p.content {
			p.trouble.set(nil)
			return false, nil
		}
		err = current(cert.Leaf, time.Now())
	}
	if err != nil {
		return p.trouble.set(err), err
	}
	p.trouble.set(nil)
	p.current.Store(cert)
	p.content = sum
	return true, nil
}

// current says why a certificate is not valid now.
func current(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("certificate expired on %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("certificate is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// maxFile bounds a file with certificates or a key.
const maxFile = 1 << 20

func readFile(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: larger than %d octets", file, maxFile)
	}
	return os.ReadFile(file)
}

func loadPair(files Pair) (*tls.Certificate, [sha256.Size]byte, error) {
	var none [sha256.Size]byte
	cert, err := readFile(files.Certificate)
	if err != nil {
		return nil, none, err
	}
	key, err := readFile(files.Key)
	if err != nil {
		return nil, none, err
	}
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, none, fmt.Errorf("%s and %s: %w", files.Certificate, files.Key, err)
	}
	if c.Leaf == nil {
		return nil, none, fmt.Errorf("%s: no certificate", files.Certificate)
	}
	return &c, sha256.Sum256(bytes.Join([][]byte{cert, key}, []byte{0})), nil
}

func (p *pair) broken() (Finding, bool) {
	since, err := p.trouble.get()
	if err == nil {
		return Finding{}, false
	}
	return Finding{
		Certificate: p.files.Name, Since: since, Expires: p.current.Load().Leaf.NotAfter,
		Problem: "new certificate is broken, the old one stays in use: " + err.Error(),
		Advice:  "put a pair that belongs together into " + p.files.Certificate + " and " + p.files.Key,
	}, true
}

// loadPool reads certificates of authorities.
func loadPool(file string) (*x509.CertPool, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, errors.New(file + ": holds no certificate (PEM)")
	}
	return pool, nil
}
