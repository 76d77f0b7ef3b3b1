//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// buildGodwit compiles the binary, static as a release is, unless INTEROP_GODWIT names one.
func buildGodwit(t *testing.T, dir string) string {
	t.Helper()
	if binary := os.Getenv("INTEROP_GODWIT"); binary != "" {
		return binary
	}
	binary := filepath.Join(dir, "bin", "godwit")
	cmd := exec.Command("go", "build", "-o", binary, "github.com/godwit-mta/godwit/cmd/godwit")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build godwit: %v\n%s", err, out)
	}
	return binary
}

// godwit is a running server.
type godwit struct {
	binary string
	socket string
	*process
}

// startGodwit runs the binary with a configuration and waits for its word that it is ready.
func startGodwit(t *testing.T, dir, binary, config string) *godwit {
	t.Helper()
	file := write(t, filepath.Join(dir, "godwit.yaml"), config)
	if out, err := exec.Command(binary, "config", "check", "--config", file).CombinedOutput(); err != nil {
		t.Fatalf("godwit config check: %v\n%s", err, out)
	}
	g := &godwit{binary: binary, socket: filepath.Join(dir, "data", "admin.sock")}
	g.process = launch(t, dir, "godwit", binary, "serve", "--config", file)
	g.await(t, "log record that it is ready", func() bool { return logged(t, g.log, "ready") })
	return g
}

// logged reports whether a JSON log holds a record with the message.
func logged(t *testing.T, file, message string) bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var record struct {
			Msg string `json:"msg"`
		}
		if json.Unmarshal(lines.Bytes(), &record) == nil && record.Msg == message {
			return true
		}
	}
	return false
}

// command runs a subcommand against the server and decodes its JSON into out.
func (g *godwit) command(t *testing.T, out any, args ...string) {
	t.Helper()
	if err := g.ask(t, out, args...); err != nil {
		t.Fatal(err)
	}
}

// ask is command for what may fail.
func (g *godwit) ask(t *testing.T, out any, args ...string) error {
	t.Helper()
	text, err := try(t, nil, append([]string{g.binary, "--json", "--socket", g.socket}, args...)...)
	if err == nil {
		err = json.Unmarshal([]byte(text), out)
	}
	if err != nil {
		return fmt.Errorf("godwit %v: %w\n%s", args, err, text)
	}
	return nil
}
