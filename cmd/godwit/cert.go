package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-mta/godwit/internal/certs"
	"github.com/godwit-mta/godwit/internal/config"
)

func (a *app) certCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cert",
		Short: "Make a certificate to try with",
	}
	a.configFlag(c)
	c.AddCommand(a.certSelfSignedCommand())
	return c
}

// madeCertificate is the answer of "cert self-signed" for programs.
type madeCertificate struct {
	Certificate string    `json:"certificate"`
	Key         string    `json:"key"`
	Names       []string  `json:"names"`
	Expires     time.Time `json:"expires"`
}

func (a *app) certSelfSignedCommand() *cobra.Command {
	var out certs.Pair
	var days int
	c := &cobra.Command{
		Use:   "self-signed [NAME...]",
		Short: "Make a certificate that is signed by its own key, for trying out and for private networks",
		Long: `Make a certificate that is signed by its own key. Clients must be told to trust it, so it is for
trying out and for networks of one's own; a server on the internet gets one from an authority.

Without --certificate and --key the files are those that tls.certificates of the configuration names and
that do not exist yet. NAME is a host name or address that clients connect to; without any it is the
hostname of the configuration, localhost and the loopback addresses. Files that exist are never overwritten.`,
		Example: `  godwit cert self-signed --config godwit.yaml
  godwit cert self-signed mail.example.com 192.0.2.1 --certificate cert.pem --key key.pem`,
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, names []string) error {
			if (out.Certificate == "") != (out.Key == "") {
				return usagef("--certificate and --key go together")
			}
			if days < 1 || days > 3650 {
				return usagef("--days is from 1 to 3650")
			}
			if out.Certificate == "" || len(names) == 0 {
				cfg, err := a.loadConfig()
				if err != nil {
					return err
				}
				if out.Certificate == "" {
					if out, err = missingPair(cfg); err != nil {
						return err
					}
				}
				if len(names) == 0 {
					names = []string{cfg.Hostname, "localhost", "127.0.0.1", "::1"}
				}
			}
			made, err := makeCertificate(out, names, days)
			if err != nil {
				return err
			}
			return a.print(made, func(w io.Writer) {
				fmt.Fprintf(w, "certificate  %s\nkey          %s\nnames        %s\nexpires      %s\n", made.Certificate, made.Key,
					strings.Join(made.Names, ", "), made.Expires.Format(time.DateOnly))
				fmt.Fprintln(w, "\nClients must be told to trust the certificate: give them that file as their CA file.")
			})
		},
	}
	f := c.Flags()
	f.StringVar(&out.Certificate, "certificate", "", "`FILE` for the certificate")
	f.StringVar(&out.Key, "key", "", "`FILE` for the key")
	f.IntVar(&days, "days", 365, "valid for so many `DAYS`")
	return c
}

// missingPair finds the first pair of the configuration whose files are not there.
func missingPair(cfg *config.Config) (certs.Pair, error) {
	if len(cfg.TLS.Certificates) == 0 {
		return certs.Pair{}, errors.New("the configuration names no certificate: add tls.certificates, or give --certificate and --key")
	}
	for _, p := range cfg.TLS.Certificates {
		missing := slices.ContainsFunc([]string{p.Certificate, p.Key}, func(file string) bool {
			_, err := os.Stat(file)
			return errors.Is(err, fs.ErrNotExist)
		})
		if missing {
			return certs.Pair{Name: p.Name, Certificate: p.Certificate, Key: p.Key}, nil
		}
	}
	return certs.Pair{}, errors.New("the files of all certificates of the configuration exist already; none was changed")
}

func makeCertificate(files certs.Pair, names []string, days int) (madeCertificate, error) {
	valid := time.Duration(days) * 24 * time.Hour
	cert, key, err := certs.SelfSigned(names, valid)
	if err != nil {
		return madeCertificate{}, err
	}
	for _, file := range []string{files.Certificate, files.Key} {
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			return madeCertificate{}, fmt.Errorf("make directory: %w", err)
		}
	}
	if err := certs.WritePair(files, cert, key); err != nil {
		return madeCertificate{}, err
	}
	return madeCertificate{
		Certificate: files.Certificate, Key: files.Key, Names: names, Expires: time.Now().Add(valid).Truncate(time.Second),
	}, nil
}
