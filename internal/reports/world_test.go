package reports

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godwit-mta/godwit/event"
	"github.com/godwit-mta/godwit/internal/dns"
	"github.com/godwit-mta/godwit/internal/spool"
	"github.com/godwit-mta/godwit/internal/store"
	"github.com/godwit-mta/godwit/message"
	"github.com/godwit-mta/godwit/smtp"
)

// world is Reports with all that is around it.
type world struct {
	*Reports
	t     *testing.T
	store *memory
	o     Options

	mu      sync.Mutex
	zones   map[string][]string // TXT
	dnsDown bool
	asked   []string
	mails   []mail
	refuse  error // what the spool says
	posts   []post
	postErr error
	events  []event.Event
	noKey   bool

	stop func()
}

type mail struct {
	m    *spool.Message
	data string
}

type post struct {
	url, contentType string
	body             []byte
	at               time.Time
}

// newWorld is to be called within a bubble of synctest.
func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, store: &memory{pairs: make(map[string]store.KV)}, zones: map[string][]string{}}
	w.o = Options{
		Resolver: w, IDs: message.NewIDs(nil), Hostname: "mta1.sender.test",
		Settings: Settings{
			Organization: "Sender", Contact: "reports@sender.test", TLS: true,
			Addresses: []smtp.Path{{Local: "tlsrpt", Domain: "sender.test"}},
		},
		Accept: w.accept, Sign: w.sign, Post: w.post, Flush: 5 * time.Minute,
		Event: func(e *event.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, *e)
		},
	}
	if change != nil {
		change(&w.o)
	}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	var err error
	w.o.Store = w.store
	if w.Reports, err = New(w.t.Context(), w.o); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) LookupTXT(ctx context.Context, name string) (dns.TXT, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, name)
	if w.dnsDown {
		return dns.TXT{}, &dns.Error{Kind: dns.Temporary, Name: name, Type: "TXT", Detail: "answered SERVFAIL"}
	}
	if txt, ok := w.zones[name]; ok {
		return dns.TXT{Records: txt}, ctx.Err()
	}
	return dns.TXT{}, &dns.Error{Kind: dns.NXDomain, Name: name, Type: "TXT"}
}

func (w *world) accept(_ context.Context, m *spool.Message, body *smtp.Body) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	p, err := io.ReadAll(body.Reader())
	w.mails = append(w.mails, mail{m, string(p)})
	return err
}

func (w *world) sign(_ context.Context, dst []byte, _ [][]byte, domain, tenant string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.noKey {
		return dst, nil
	}
	return append(dst, "DKIM-Signature: v=1; d="+domain+"; t="+tenant+"\r\n"...), nil
}

func (w *world) post(_ context.Context, url, contentType string, body []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.posts = append(w.posts, post{url, contentType, slices.Clone(body), time.Now()})
	return w.postErr
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) sentMails() []mail {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mails)
}

func (w *world) sentPosts() []post {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.posts)
}

func (w *world) keys(prefix string) []string {
	w.t.Helper()
	var list []string
	for kv, err := range w.store.Scan(w.t.Context(), prefix) {
		if err != nil {
			w.t.Fatal(err)
		}
		list = append(list, strings.TrimPrefix(kv.Key, prefix))
	}
	return list
}

var errDown = errors.New("down")
