package enclosure

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

const xmlDoc = `<?xml version="1.0"?><feedback/>`
const jsonDoc = `{"report-id":"1"}`

func gz(t testing.TB, name, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Name = name
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zipFile(t testing.TB, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i, text := range files {
		w, err := z.Create(fmt.Sprintf("dir/%d.xml", i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func b64(p string) string {
	s := base64.StdEncoding.EncodeToString([]byte(p))
	var b strings.Builder
	for len(s) > 76 {
		b.WriteString(s[:76] + "\r\n")
		s = s[76:]
	}
	return b.String() + s + "\r\n"
}

// single is a message that is one attachment; multi one with a text before it.
func single(kind, p string) string {
	return "From: a@b.test\r\nContent-Type: " + kind + "\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64(p)
}

func multi(kind, p string) string {
	return "From: a@b.test\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b1\"\r\n\r\npreamble\r\n" +
		"--b1\r\nContent-Type: text/plain\r\n\r\nThis is a report.\r\n" +
		"--b1\r\nContent-Type: " + kind + "; name=x\r\nContent-Disposition: attachment; filename=\"a!b!1!2.xml.gz\"\r\n" +
		"Content-Transfer-Encoding: base64\r\n\r\n" + b64(p) + "--b1--\r\n"
}

// collect returns what is found as "format name text".
func collect(walk func(func(*Document) error) error) ([]string, error) {
	var got []string
	err := walk(func(d *Document) error {
		p, err := io.ReadAll(d)
		got = append(got, fmt.Sprintf("%s %s %s", d.Format, d.Name, p))
		return err
	})
	return got, err
}

func fromMessage(m string, l Limits) ([]string, error) {
	return collect(func(visit func(*Document) error) error { return FromMessage(strings.NewReader(m), l, visit) })
}

func fromFile(name, m string, l Limits) ([]string, error) {
	return collect(func(visit func(*Document) error) error { return FromFile(name, strings.NewReader(m), l, visit) })
}

func TestFromMessage(t *testing.T) {
	t.Parallel()
	nested := "From: a@b.test\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n" +
		multi("application/gzip", gz(t, "r.json", jsonDoc)) + "\r\n--o--\r\n"
	qp := "From: a@b.test\r\nContent-Type: text/xml\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
		strings.ReplaceAll(xmlDoc, "=", "=3D") + "\r\n"
	for name, c := range map[string]struct {
		message string
		want    []string
	}{
		"gzip":                    {multi("application/gzip", gz(t, "", xmlDoc)), []string{"xml a!b!1!2.xml " + xmlDoc}},
		"its own name":            {single("application/gzip", gz(t, "../in.xml", xmlDoc)), []string{"xml in.xml " + xmlDoc}},
		"zip":                     {multi("application/zip", zipFile(t, xmlDoc)), []string{"xml 0.xml " + xmlDoc}},
		"zip, called text":        {multi("text/plain", zipFile(t, xmlDoc)), []string{"xml 0.xml " + xmlDoc}},
		"two in a zip":            {single("application/zip", zipFile(t, xmlDoc, jsonDoc)), []string{"xml 0.xml " + xmlDoc, "json 1.xml " + jsonDoc}},
		"gzip in a zip":           {single("application/zip", zipFile(t, gz(t, "i.xml", xmlDoc))), []string{"xml i.xml " + xmlDoc}},
		"plain json":              {single("application/tlsrpt+json", jsonDoc), []string{"json  " + jsonDoc}},
		"in a message in a part":  {nested, []string{"json r.json " + jsonDoc}},
		"quoted-printable":        {qp, []string{"xml  " + xmlDoc + "\r\n"}},
		"with a byte order mark":  {single("text/xml", "\ufeff"+xmlDoc), []string{"xml  \ufeff" + xmlDoc}},
		"line feeds alone":        {strings.ReplaceAll(multi("application/gzip", gz(t, "", xmlDoc)), "\r\n", "\n"), []string{"xml a!b!1!2.xml " + xmlDoc}},
		"without its last line":   {strings.TrimSuffix(multi("application/gzip", gz(t, "", xmlDoc)), "--b1--\r\n"), []string{"xml a!b!1!2.xml " + xmlDoc}},
		"a line that is no field": {"nonsense\r\n" + single("application/gzip", gz(t, "", xmlDoc)), []string{"xml  " + xmlDoc}},
		"in pages of HTML":        {"Content-Type: text/html\r\n\r\n" + xmlDoc, nil},
		"nothing":                 {"Subject: hi\r\n\r\nhello\r\n", nil},
		"no header at all":        {"", nil},
	} {
		got, err := fromMessage(c.message, Limits{})
		if fmt.Sprint(got) != fmt.Sprint(c.want) || (len(c.want) == 0) != errors.Is(err, ErrNone) || len(c.want) > 0 && err != nil {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestFromFile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, want string }{
		"r.xml":    {xmlDoc, "xml r.xml " + xmlDoc},
		"r.json":   {" \n" + jsonDoc, "json r.json  \n" + jsonDoc},
		"r.xml.gz": {gz(t, "", xmlDoc), "xml r.xml " + xmlDoc},
		"r.zip":    {zipFile(t, xmlDoc), "xml 0.xml " + xmlDoc},
		"r.eml":    {single("application/gzip", gz(t, "", xmlDoc)), "xml  " + xmlDoc},
		"r.eml.gz": {gz(t, "", "hello"), ""},
	} {
		got, err := fromFile(name, c.file, Limits{})
		if c.want == "" {
			if !errors.Is(err, ErrNone) {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		} else if len(got) != 1 || got[0] != c.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// TestBombs says that what is too large is refused before it costs much, and that memory follows the limits.
func TestBombs(t *testing.T) {
	if testing.Short() {
		t.Skip("makes large files")
	}
	huge := `<?xml version="1.0"?>` + strings.Repeat("x", 64<<20)
	deep := xmlDoc
	for range 5 {
		deep = gz(t, "", deep)
	}
	parts := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\n\r\n", 10_000)
	var nested strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&nested, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	for name, m := range map[string]string{
		"gzip":              single("application/gzip", gz(t, "", huge)),
		"zip":               single("application/zip", zipFile(t, huge)),
		"gzip in zip":       single("application/zip", zipFile(t, gz(t, "", huge))),
		"several in a zip":  single("application/zip", zipFile(t, huge[:15<<20], huge[:15<<20])),
		"many in a zip":     single("application/zip", zipFile(t, make([]string, 1000)...)),
		"gzip in gzip":      single("application/gzip", deep),
		"large zip":         single("application/zip", "PK\x03\x04"+strings.Repeat("x", 6<<20)),
		"many parts":        parts,
		"deep parts":        nested.String(),
		"messages in it":    strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 5000),
		"a header for ever": strings.Repeat("X: y\r\n", 1<<20),
		"one line":          strings.Repeat("x", 8<<20),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		err := FromMessage(strings.NewReader(m), Limits{}, func(d *Document) error {
			_, err := io.Copy(io.Discard, d)
			return err
		})
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 40<<20 {
			t.Errorf("%s: %d MiB allocated", name, got>>20)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%s: took %v", name, d)
		}
	}
}

// TestVisitor says that the visitor's error ends the walk and comes back.
func TestVisitor(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	n := 0
	err := FromFile("x.zip", strings.NewReader(zipFile(t, xmlDoc, xmlDoc)), Limits{}, func(*Document) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
}

func FuzzFromFile(f *testing.F) {
	for _, s := range []string{
		xmlDoc, jsonDoc, gz(f, "a", xmlDoc), zipFile(f, xmlDoc), multi("application/gzip", gz(f, "", xmlDoc)), single("text/xml", xmlDoc),
		"Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/x; boundary=a\r\n\r\n--a\r\n\r\n{}\r\n--a--\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		l := Limits{Message: 1 << 20, Archive: 1 << 16, Unpacked: 1 << 18}
		total := int64(0)
		n := 0
		_ = FromFile("f", bytes.NewReader(p), l, func(d *Document) error {
			n++
			got, err := io.Copy(io.Discard, d)
			total += got
			return err
		})
		if total > l.Unpacked || n > 10 {
			t.Errorf("%d octets in %d documents", total, n)
		}
	})
}
