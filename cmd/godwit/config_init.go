package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/internal/config"
)

// firstConfig is a submission server of its own. It is checked by the same rules as any other file.
var firstConfig = template.Must(template.New("").Parse(`# Godwit: applications log in over TLS and send to anyone. Every other key has a default:
# "godwit config show" prints them all, docs/reference/config.md explains them.
hostname: {{.Hostname}}
data_dir: {{.DataDir}}

tls:
  certificates:
    - {name: main, certificate: {{.Certificate}}, key: {{.Key}}}

listeners:
  - {name: submission, address: "{{.Address}}:{{.StartTLS}}", tls: starttls, auth: required}
  - {name: submissions, address: "{{.Address}}:{{.Implicit}}", tls: implicit, auth: required}

http: {address: "127.0.0.1:8080"}     # /metrics, /healthz, /readyz
`))

type firstValues struct {
	Hostname, DataDir, Certificate, Key, Address string
	StartTLS, Implicit                           int
}

// initialised is the answer of "config init" for programs.
type initialised struct {
	File   string           `json:"file"`
	Next   []string         `json:"next"` // commands
	Advice []config.Problem `json:"advice"`
}

func (a *app) configInitCommand() *cobra.Command {
	var hostname, dir, address string
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration: applications log in over TLS",
		Long: `Write a first configuration for a server that applications log in to over TLS, with all that it needs
below the directory it is written to. Ports are 587 and 465 if this user may open them, else 2587 and 2465.
A file that exists is never overwritten.`,
		Example: `  godwit config init --hostname mail.example.com
  godwit config init --hostname mail.example.com --config /etc/godwit/godwit.yaml --data-dir /var/lib/godwit`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			file := a.configPath
			if file == "" {
				file = "godwit.yaml"
			}
			path, err := filepath.Abs(file)
			if err != nil {
				return fmt.Errorf("find directory: %w", err)
			}
			v := firstValues{Hostname: hostname, DataDir: dir, Address: address, StartTLS: 587, Implicit: 465}
			if v.Hostname == "" {
				if v.Hostname, err = os.Hostname(); err != nil {
					return usagef("this machine has no name: give --hostname")
				}
			}
			if v.DataDir == "" {
				v.DataDir = "data"
			}
			if v.DataDir, err = filepath.Abs(v.DataDir); err != nil {
				return fmt.Errorf("find directory: %w", err)
			}
			v.Certificate = filepath.Join(filepath.Dir(path), "tls", "cert.pem")
			v.Key = filepath.Join(filepath.Dir(path), "tls", "key.pem")
			if !mayOpenLowPorts() {
				v.StartTLS, v.Implicit = 2587, 2465
			}
			cfg, err := writeFirst(path, &v)
			if err != nil {
				return err
			}
			res := initialised{File: path, Advice: append([]config.Problem{}, cfg.Advice()...), Next: []string{
				"godwit cert self-signed --config " + file,
				"godwit serve --config " + file,
				"godwit credential create --config " + file + " --name app --domain example.com",
				"godwit dkim create --config " + file + " example.com",
			}}
			return a.print(res, func(w io.Writer) {
				fmt.Fprintf(w, "Wrote %s.\n", file)
				for _, p := range res.Advice {
					fmt.Fprintf(w, "advice: %s\n", p.Error())
				}
				fmt.Fprintf(w, `
Next: a certificate to try with, the server, and, while it runs, a credential for an application and keys that sign its mail:

  %s
  %s
  %s
  %s
`, res.Next[0], res.Next[1], res.Next[2], res.Next[3])
			})
		},
	}
	f := c.Flags()
	f.StringVar(&hostname, "hostname", "", "the server's `NAME`, such as mail.example.com (default the machine's)")
	f.StringVar(&dir, "data-dir", "", "`DIR` for mail and settings (default data here)")
	f.StringVar(&address, "address", "0.0.0.0", "`ADDRESS` to listen on; 127.0.0.1 is this machine alone")
	return c
}

// mayOpenLowPorts asks the system, which may allow more than user 0.
func mayOpenLowPorts() bool {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return os.Geteuid() == 0
	}
	l.Close()
	for _, port := range []string{"127.0.0.1:587", "127.0.0.1:465"} {
		l, err := net.Listen("tcp", port)
		switch {
		case errors.Is(err, fs.ErrPermission):
			return false
		case err == nil:
			l.Close()
		}
	}
	return true
}

func writeFirst(path string, v *firstValues) (*config.Config, error) {
	var text bytes.Buffer
	if err := firstConfig.Execute(&text, v); err != nil {
		return nil, err
	}
	cfg, err := config.Parse(path, text.Bytes())
	if err != nil {
		return nil, fmt.Errorf("the configuration would not be good:\n%w", err)
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s exists already, and nothing was changed; name another file with --config FILE", path)
	}
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	if _, err := out.Write(text.Bytes()); err != nil {
		return nil, errors.Join(fmt.Errorf("write configuration: %w", err), out.Close())
	}
	return cfg, out.Close()
}
