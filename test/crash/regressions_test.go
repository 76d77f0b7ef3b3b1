package crash

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// regressions are bugs of other mail servers that a new one plausibly has too (found in 2023 to 2026), and the tests that
// keep them out of this one: package directory and function, or a row of the fault matrix.
var regressions = []struct {
	id, bug string
	tests   string
}{
	{"R-1", "an error of the store was swallowed, and the message answered 250",
		"internal/submission TestNotKept, internal/spool TestR1R4StoreErrors, row L-3"},
	{"R-2", "delivered, but not removed from the spool: delivered again for ever",
		"internal/spool TestR2RemovalFails TestR2SettleFails, internal/queue TestNothingIsDeliveredWhenTheSpoolFails"},
	{"R-3", "what an administrator changed was lost at a restart", "row R-3"},
	{"R-4", "an error after spooling: 4yz to the client, and delivered all the same",
		"internal/spool TestR1R4StoreErrors, smtp/smtpserver TestEnvelopeEmptyAfterFinalReply, row L-1"},
	{"R-5", "bodies of dots hung the session", "smtp/smtpclient TestR5 TestStuffing, row K-1"},
	{"R-6", "RCPT outside of a transaction ended the process", "smtp/smtpserver TestStateTable"},
	{"R-7", "state was left over after a refusal at the end of data",
		"smtp/smtpserver TestEnvelopeEmptyAfterFinalReply TestStateTable TestSmuggling"},
	{"R-8", "a failed BDAT left recipients behind; tiny chunks filled memory; refused input was read without end",
		"smtp/smtpserver TestBdatAfterDataError TestBdatTinyChunks TestSkipRate"},
	{"R-9", "an address in UTF-8 without SMTPUTF8, then DATA", "smtp/smtpserver TestAddresses"},
	{"R-10", "smuggling through line ends that another server reads otherwise",
		"smtp/smtpserver TestSmuggling TestSmugglingAtOffsets TestSmugglingByChunks, internal/daemon TestScripts"},
	{"R-11", "records of DNS that are too short were read beyond their end", "internal/dns TestD8Malformed"},
	{"R-12", "replies of several lines were misread, enhanced codes of earlier replies used",
		"smtp/smtpclient TestR12 TestReadReply TestK3Replies, row K-3"},
	{"R-13", "ORCPT was not encoded on the way out; NUL was taken in it", "smtp TestAppendRcpt TestParseRcpt"},
	{"R-14", "a session ticket of one listener was good for another", "internal/certs TestTTICKET"},
	{"R-15", "the accept loop spun without descriptors", "smtp/smtpserver TestDescriptorsShort, row C-2"},
	{"R-16", "reports about reports, for ever", "internal/queue TestReportHasTheNullSenderAndIsNeverReportedOn"},
	{"R-20", "an identity that only looks like a subdomain was signed for", "mailauth/dkim TestKeysThatDoNotSign"},
	{"R-21", "retries stopped, since a timer was lost", "internal/queue TestNoWakeUpIsLost, row N-2"},
	{"R-22", "local parts were folded to lower case",
		"smtp TestParseForwardPath, smtp/smtpserver TestAddresses, internal/submission TestMessage"},
	{"R-23", "octets that are no UTF-8 ended the session", "smtp/smtpserver TestAddresses TestCommandOctets"},
	{"R-24", "a quoted local part became parameters", "smtp TestAppendRcpt, message TestI2AddressInjection"},
	{"R-25", "parsers took quadratic time or endless memory", "message TestR25 TestHeaderIsBounded"},
}

// later are those about what this server does not do yet: DANE, MTA-STS, and passwords for other servers.
var later = []string{"R-17", "R-18", "R-19"}

// TestRegressions holds that the tests of the table exist.
func TestRegressions(t *testing.T) {
	t.Parallel()
	rows := make(map[string]bool)
	for _, s := range scenarios() {
		rows[s.ID] = true
	}
	for _, r := range regressions {
		for _, part := range strings.Split(r.tests, ", ") {
			words := strings.Fields(part)
			if words[0] == "row" {
				if !rows[words[1]] {
					t.Errorf("%s: there is no row %s", r.id, words[1])
				}
				continue
			}
			have := testsOf(t, filepath.Join("..", "..", words[0]))
			for _, name := range words[1:] {
				if !have[name] {
					t.Errorf("%s: there is no %s in %s", r.id, name, words[0])
				}
			}
		}
	}
	if len(regressions)+len(later) != 25 {
		t.Errorf("%d and %d are not 25", len(regressions), len(later))
	}
}

// testsOf returns the names of the tests in a directory.
func testsOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, f.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				have[fn.Name.Name] = true
			}
		}
	}
	return have
}
