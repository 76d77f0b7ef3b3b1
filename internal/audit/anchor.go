package audit

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Anchor is the head of the chain at some time, signed. Anchors are lines of JSON in a file that only grows; the first one, with
// index 0, introduces the key.
type Anchor struct {
	Index uint64    `json:"index"`
	Hash  Hash      `json:"hash"`
	Time  time.Time `json:"time"`
	Key   []byte    `json:"key"`       // Ed25519 public key, base64
	Sig   []byte    `json:"signature"` // over the fields above
}

func (a *Anchor) signed() []byte {
	return fmt.Appendf(nil, "godwit audit anchor 1\n%d\n%s\n%d\n%s\n", a.Index, a.Hash, a.Time.UnixMicro(),
		base64.StdEncoding.EncodeToString(a.Key))
}

// valid says whether the signature is that of the key in the anchor.
func (a *Anchor) valid() bool {
	return len(a.Key) == ed25519.PublicKeySize && ed25519.Verify(a.Key, a.signed(), a.Sig)
}

// anchor appends to the anchor file.
type anchor struct {
	path string
	key  ed25519.PrivateKey
	file *os.File
	last Anchor
}

// keySuffix names the key file of an anchor.
const keySuffix = ".key"

// openAnchor opens or makes the file and its key, and reads the last anchor. A crash while they are made leaves a key without
// anchors, or a line that is not whole, which is closed off.
func openAnchor(path, keyPath string) (*anchor, error) {
	if keyPath == "" {
		keyPath = path + keySuffix
	}
	for _, p := range []string{path, keyPath} {
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			return nil, err
		}
	}
	key, err := loadKey(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(keyPath)
	}
	if err != nil {
		return nil, err
	}
	anchors, err := readAnchorFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	a := &anchor{path: path, key: key}
	for i := range anchors {
		if anchors[i].valid() && anchors[i].Index >= a.last.Index {
			a.last = anchors[i]
		}
	}
	if err := a.open(); err != nil {
		return nil, err
	}
	err = a.endLine()
	if err == nil && len(anchors) == 0 {
		err = a.append(head{}, time.Now())
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return a, errors.Join(err, a.close())
}

// open opens the file for one line: whoever moves it away finds the next line in a new one. No anchor is always open.
func (a *anchor) open() (err error) {
	if a == nil {
		return nil
	}
	a.file, err = os.OpenFile(a.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	return err
}

func (a *anchor) close() error {
	if a == nil {
		return nil
	}
	return a.file.Close()
}

// endLine ends a line that a crash left open.
func (a *anchor) endLine() error {
	info, err := a.file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	var last [1]byte
	if _, err := a.file.ReadAt(last[:], info.Size()-1); err != nil {
		// A file that may only be appended to may forbid reading; then nothing can be said.
		return nil
	}
	if last[0] == '\n' {
		return nil
	}
	_, err = a.file.Write([]byte("\n"))
	return err
}

// append signs h and writes it, synced. The file is open.
func (a *anchor) append(h head, now time.Time) error {
	if a == nil {
		return nil
	}
	next := Anchor{
		Index: h.Index, Hash: h.Hash, Time: now.UTC().Truncate(time.Microsecond),
		Key: a.key.Public().(ed25519.PublicKey),
	}
	next.Sig = ed25519.Sign(a.key, next.signed())
	line, err := json.Marshal(next)
	if err == nil {
		_, err = a.file.Write(append(line, '\n'))
	}
	if err == nil {
		err = a.file.Sync()
	}
	if err == nil {
		a.last = next
	}
	return err
}

// ReadAnchors reads an anchor file. Lines that are not whole, as a crash leaves them, or not signed by their key are errors of
// their own in [Verify], not here.
func ReadAnchors(r io.Reader) ([]Anchor, error) {
	var all []Anchor
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var a Anchor
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			continue // half a line; what it would have said is in the chain
		}
		all = append(all, a)
	}
	return all, lines.Err()
}

func readAnchorFile(path string) ([]Anchor, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAnchors(f)
}

const keyBlock = "PRIVATE KEY"

func loadKey(path string) (ed25519.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("%s holds no private key in PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds no Ed25519 key", path)
	}
	return private, nil
}

// makeKey writes a new key, for its owner alone. A crash leaves no key or a whole one.
func makeKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	temporary := path + ".tmp"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	err = pem.Encode(f, &pem.Block{Type: keyBlock, Bytes: der})
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(temporary, path); err != nil {
		return nil, err
	}
	return key, syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
