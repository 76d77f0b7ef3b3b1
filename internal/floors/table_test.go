package floors

const module = "github.com/godwit-mta/godwit"

// The floors, with what a package on each of them must not know and why.
const (
	words    = 0
	services = 1
	engine   = 2
	surfaces = 3
	top      = 4
)

var floorReasons = map[int]string{
	words:    "public vocabulary knows no state of Godwit, so that others can build on it and it never has to change for an engine",
	services: "services know how to do one thing; what it is done for is decided above, so that each can be tested and replaced alone",
	engine:   "the engine moves mail whoever brought it; were it to know a surface, a second way in would mean a second engine",
	surfaces: "surfaces are peers that the composition root puts together; only it knows all of them",
	top:      "nothing stands above the composition root",
}

// rooms puts each package on its floor. Packages below a directory that is listed stand on its floor too.
var rooms = map[string]int{
	"smtp": words, "message": words, "mailauth": words, "event": words, "api": words,

	"internal/dns": services, "internal/journal": services, "internal/store": services, "internal/spool": services,
	"internal/strictfs":    services,
	"internal/suppression": services, "internal/bounce": services, "internal/config": services,
	"internal/certs": services, "internal/audit": services, "internal/seal": services,
	"internal/keyring": services, "internal/dnspublish": services,
	"internal/fetch": services,

	"internal/shaping": engine, "internal/queue": engine, "internal/delivery": engine, "internal/outbox": engine, "internal/analytics": engine,
	"internal/reports": engine,
	"internal/signing": engine,

	"internal/submission": surfaces, "internal/doctor": surfaces, "internal/httpapi": surfaces, "web": surfaces,

	"internal/daemon": top, "cmd": top, "internal/docgen": top, "internal/floors": top, "test": top,
}

// neighbours lists who may know whom on one floor. A package may always know the packages below its own directory and,
// from there, the packages above: delivery knows delivery/egress, and journal/journaltest knows journal.
var neighbours = map[string][]string{
	"message/dsn": {"smtp"},                         // reports quote replies, paths and recipients
	"mailauth":    {"message", "mailauth/internal"}, // fields and bodies of messages; what the signing fields of DKIM and ARC have in common
	"api":         {"event"},

	"internal/spool": {"internal/journal", "internal/strictfs"}, // the spool is a view of the journal; its index ends in an orderly way
	"internal/store": {"internal/strictfs"},                     // so does the store
	"internal/certs": {"internal/store", "internal/dnspublish"}, // what ACME got is kept in the store; one kind of challenge is a record
	"internal/audit": {"internal/store"},                        // the chain is kept in the store

	"internal/keyring": {"internal/store"}, // keys are kept in the store
	"internal/fetch":   {"internal/dns"},   // whom it may connect to is judged as mail hosts are

	"internal/queue":              {"internal/shaping"},
	"internal/delivery":           {"internal/queue", "internal/shaping"},
	"internal/delivery/egress":    {"internal/shaping"},
	"internal/delivery/tlspolicy": {"internal/shaping"},
	"internal/reports":            {"internal/delivery/tlspolicy"}, // what came of sessions

	"internal/httpapi": {"internal/submission", "internal/doctor"},

	"cmd":  {"internal/daemon"},
	"test": {"internal/daemon"}, // harnesses that run the program from outside
}

// edgeReasons explains edges that are forbidden for more than their floors.
var edgeReasons = map[[2]string]string{
	{"internal/submission", "internal/queue"}:    "submission ends when a message is durable; who delivers it learns of it from the spool",
	{"internal/submission", "internal/delivery"}: "submission ends when a message is durable; who delivers it learns of it from the spool",
	{"internal/queue", "internal/delivery"}:      "the consumer owns the interface: queue declares Deliverer, delivery implements it, and only daemon knows both",
	{"internal/spool", "internal/store"}:         "the spool is derived from the journal alone, so that it can be thrown away and rebuilt",
}

// library is a dependency with the packages that may import it and why it is theirs alone.
type library struct {
	path   string   // of the module or of packages in it; the longest one counts
	owners []string // nil: everyone
	why    string
}

var libraries = []library{
	{"github.com/cockroachdb/pebble/v2", []string{"internal/store", "internal/spool"},
		"all other rooms keep what they keep as records of the journal or keys of the store, so that there is one discipline of syncing"},
	{"github.com/cockroachdb/pebble/v2/vfs", []string{"internal/journal", "internal/store", "internal/spool", "internal/strictfs", "internal/seal", "internal/daemon", "test/crash"},
		"the file system seam of what must survive a crash; daemon hands the real one over"},
	{"github.com/cockroachdb/errors/oserror", []string{"internal/journal", "internal/store", "internal/spool"},
		"tells the errors of Pebble's file systems apart"},
	{"github.com/miekg/dns", []string{"internal/dns"},
		"its types must not spread: it will be replaced one day, and only one place may decide what an answer means"},
	{"github.com/goccy/go-yaml", []string{"internal/config"}, "one place reads files of the operator and knows where each value came from"},
	{"github.com/invopop/jsonschema", []string{"internal/config/configdoc"}, "the schema is generated, not computed in the server"},
	{"github.com/spf13/cobra", []string{"cmd/godwit"}, "commands are the outermost layer; what they do is reachable without them"},
	{"github.com/spf13/pflag", []string{"cmd/godwit"}, "commands are the outermost layer; what they do is reachable without them"},
	{"github.com/klauspost/compress", []string{"internal/outbox"}, "only the event log compresses"},
	{"github.com/prometheus/client_golang/prometheus", nil, ""},
	{"github.com/prometheus/client_golang/prometheus/promhttp", []string{"internal/httpapi", "internal/daemon"}, "metrics are shown in one place"},
	{"github.com/prometheus/client_golang/prometheus/promauto", []string{}, "it registers with a global; a Registerer is passed in Options"},
	{"github.com/prometheus/common", []string{"internal/daemon", "internal/httpapi"}, "metrics are shown in one place"},
	{"github.com/caddyserver/certmagic", []string{"internal/certs"}, "it has globals of its own and logs in its own way; what it does is seen as certificates and findings alone"},
	{"github.com/go-jose/go-jose/v4", []string{"internal/submission/auth/bearer"}, "it takes many more kinds of tokens and keys than we want; one place says which"},
	{"github.com/libdns", []string{"internal/dnspublish"}, "one place writes records: challenges of certificates and keys of DKIM"},
	{"github.com/ebitengine/purego", []string{"internal/signing/libcrypto"}, "it calls code that Go does not check; only the fast primitive needs it"},
	{"go.uber.org/zap", []string{"internal/certs"}, "the ACME library logs by it; all else logs by slog"},
	{"golang.org/x/net/idna", []string{"smtp", "internal/dns"}, "there is one way from a domain as typed to a domain as asked for"},
	{"golang.org/x/crypto/argon2", []string{"internal/submission/auth"}, "there is one way from a password to what is stored of it"},
	{"golang.org/x/sys/unix", nil, ""},
	{"golang.org/x/term", []string{"cmd/godwit"}, "only commands talk to terminals"},
	{"golang.org/x/text", nil, ""},

	// For tests alone.
	{"github.com/google/go-cmp", []string{}, "it is for tests"},
	{"github.com/rogpeppe/go-internal", []string{}, "it is for tests"},
	{"go.uber.org/goleak", []string{}, "it is for tests"},
	{"pgregory.net/rapid", []string{}, "it is for tests"},
	{"github.com/emersion/go-msgauth", []string{}, "another's verifier tells tests whether our signatures hold"},
	{"blitiri.com.ar/go/spf", []string{}, "another's evaluator is compared with ours in tests"},
}

// testKits are packages that are not tests themselves but exist for tests, so they may use what tests use.
var testKits = []string{
	"internal/journal/journaltest", "internal/store/storetest", "internal/dns/dnstest", "internal/daemon/daemontest", "smtp/smtptest",
	"test",
}

// nobodys are names of packages that hold whatever has no place: they say nothing about what is in them.
var nobodys = []string{"util", "utils", "common", "type", "types", "helper", "helpers", "core", "model", "models", "misc", "base", "shared", "lib", "pkg"}
