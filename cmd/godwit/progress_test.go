package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestProgressElsewhere holds that nothing is drawn where no terminal is.
func TestProgressElsewhere(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "errors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a := &app{err: f, out: f}
	bar := a.newProgress("sending", 10)
	bar.set(10, "")
	bar.part(1, 2)
	bar.end()
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v: a file got a progress bar", info, err)
	}
	if got := a.columns(); got != 0 {
		t.Errorf("a file is %d columns wide", got)
	}
}
