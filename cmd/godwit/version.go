package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/internal/signing"
)

// build is what is known of this binary.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	RSA      string `json:"rsa,omitempty"` // what signs with RSA keys
}

// linked is set by the linker with -X main.linked=COMMIT where the build has no version control information.
var linked string

func readBuild() build {
	b := build{Version: "devel", Commit: linked, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (b build) String() string {
	commit := b.Commit
	if commit == "" {
		commit = "unknown"
	}
	if b.Modified {
		commit += " (with changes)"
	}
	text := fmt.Sprintf("godwit %s, commit %s, %s, %s", b.Version, commit, b.Go, b.Platform)
	if b.RSA != "" {
		text += "\nRSA signatures by " + b.RSA
	}
	return text
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Tell version, commit, Go version, and what signs with RSA keys",
		Example: `  godwit version
  godwit version --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			b.RSA = signing.NewPrimitive(nil).String()
			return a.print(b, func(w io.Writer) { fmt.Fprintln(w, b) })
		},
	}
}
