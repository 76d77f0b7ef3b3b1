package event

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// word is what the members of the closed lists have in common.
type word interface {
	comparable
	fmt.Stringer
	Explain() string
	MarshalText() ([]byte, error)
}

func testList[W word](t *testing.T, all []W, parse func(string) (W, error), unmarshal func([]byte) (W, error)) {
	t.Helper()
	name := regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)
	seen := make(map[string]bool)
	var zero W
	for i, w := range all {
		s := w.String()
		if !name.MatchString(s) {
			t.Errorf("number %d has the name %q, want snake_case", i+1, s)
		}
		if seen[s] {
			t.Errorf("%q occurs twice", s)
		}
		seen[s] = true
		if text := w.Explain(); len(text) < 10 || !strings.HasSuffix(text, ".") {
			t.Errorf("%s: explanation %q is no sentence", s, text)
		}
		if got, err := parse(s); err != nil || got != w {
			t.Errorf("parse %q: %v, %v", s, got, err)
		}
		text, err := w.MarshalText()
		if err != nil {
			t.Error(err)
		}
		if got, err := unmarshal(text); err != nil || got != w {
			t.Errorf("unmarshal %q: %v, %v", text, got, err)
		}
	}
	for _, s := range []string{"", "nonsense", "OK", " ok"} {
		if got, err := parse(s); err == nil || got != zero {
			t.Errorf("parse %q: %v, %v, want an error", s, got, err)
		}
	}
	if got, err := unmarshal(nil); err != nil || got != zero {
		t.Errorf("unmarshal of nothing: %v, %v", got, err)
	}
	if zero.String() != "" || zero.Explain() != "" {
		t.Error("the zero value has words")
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	t.Run("types", func(t *testing.T) {
		t.Parallel()
		testList(t, Types(), ParseType, func(p []byte) (w Type, err error) { err = w.UnmarshalText(p); return })
	})
	t.Run("reasons", func(t *testing.T) {
		t.Parallel()
		testList(t, Reasons(), ParseReason, func(p []byte) (w Reason, err error) { err = w.UnmarshalText(p); return })
	})
	t.Run("classes", func(t *testing.T) {
		t.Parallel()
		testList(t, Classes(), ParseClass, func(p []byte) (w Class, err error) { err = w.UnmarshalText(p); return })
	})
	for _, s := range []string{Type(200).String(), Reason(200).String(), Class(200).String(),
		Type(200).Explain(), Reason(200).Explain(), Class(200).Explain()} {
		if s != "" {
			t.Errorf("a number out of range has the words %q", s)
		}
	}
}

// TestNumbersStable holds the numbers that records on disk contain: lines may be added at the end of each list, none
// may move.
func TestNumbersStable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	list := func(title string, n int, name func(int) string) {
		fmt.Fprintln(&b, title)
		for i := 1; i <= n; i++ {
			fmt.Fprintf(&b, "  %d %s\n", i, name(i))
		}
	}
	list("type", len(Types()), func(i int) string { return Type(i).String() })
	list("reason", len(Reasons()), func(i int) string { return Reason(i).String() })
	list("class", len(Classes()), func(i int) string { return Class(i).String() })
	want, err := os.ReadFile("testdata/numbers.txt")
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("numbers differ from testdata/numbers.txt; got:\n%s", b.String())
	}
}

func TestFinal(t *testing.T) {
	t.Parallel()
	final := map[Type]bool{Delivered: true, Bounced: true, Expired: true, Cancelled: true, Suppressed: true}
	for _, typ := range Types() {
		if typ.Final() != final[typ] {
			t.Errorf("%s: Final is %v", typ, typ.Final())
		}
	}
}

func TestWordsInJSON(t *testing.T) {
	t.Parallel()
	var got struct {
		T Type
		R Reason
		C Class
	}
	if err := json.Unmarshal([]byte(`{"T":"deferred","R":"dns_temporary","C":"mailbox_full"}`), &got); err != nil {
		t.Fatal(err)
	}
	if got.T != Deferred || got.R != DNSTemporary || got.C != ClassMailboxFull {
		t.Errorf("got %+v", got)
	}
	for _, s := range []string{`{"T":"x"}`, `{"R":"x"}`, `{"C":"x"}`} {
		if err := json.Unmarshal([]byte(s), &got); err == nil {
			t.Errorf("%s: no error", s)
		}
	}
}
