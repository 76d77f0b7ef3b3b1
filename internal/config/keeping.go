package config

import (
	"cmp"
	"path/filepath"
	"strconv"
)

// Audit says how the record of administrative acts is vouched for.
type Audit struct {
	// The file that the signed head of the audit chain is appended to after each act. Put it outside data_dir, where the
	// server may only append or from where it is copied away: then a chain that was shortened or put back to an earlier
	// state is found. Empty: audit.anchor in data_dir.
	Anchor string `yaml:"anchor" restart:"yes"`

	// The file of the key that signs (PEM); it is made if missing. Empty: the anchor's name with ".key" behind.
	KeyFile string `yaml:"key_file" restart:"yes"`
}

// Encryption says how what is kept on disk is encrypted. It is off unless a key is given.
type Encryption struct {
	// The file with the master key, as "godwit key create" makes it; readable for the server alone. Further lines may hold
	// older keys, so that what they wrapped can be wrapped anew.
	KeyFile string `yaml:"key_file" restart:"yes"`

	// A command that prints what the file would hold, run without a shell: its name, then its arguments.
	KeyCommand []string `yaml:"key_command" restart:"yes"`

	// Whether what is written from now on is encrypted. Turned off, what was encrypted stays readable while its keys are
	// given.
	Seal bool `yaml:"seal" restart:"yes"`
}

// Enabled says that a master key is given.
func (e *Encryption) Enabled() bool { return e.KeyFile != "" || len(e.KeyCommand) > 0 }

// AnchorFile returns where the audit chain is anchored.
func (c *Config) AnchorFile() string {
	return cmp.Or(c.Audit.Anchor, filepath.Join(c.DataDir, "audit.anchor"))
}

func (d *decoder) checkKeeping() {
	c := d.cfg
	for key, path := range map[string]string{
		"audit.anchor": c.Audit.Anchor, "audit.key_file": c.Audit.KeyFile, "encryption.key_file": c.Encryption.KeyFile,
	} {
		if path != "" && !filepath.IsAbs(path) && filepath.IsAbs(c.DataDir) {
			d.wrong(key, strconv.Quote(path)+" is not an absolute path", "write it from the root")
		}
	}
	if c.Encryption.KeyFile != "" && len(c.Encryption.KeyCommand) > 0 {
		d.wrong("encryption.key_command", "stands beside key_file", "give one of them")
	}
	if n := len(c.Encryption.KeyCommand); n > 0 && !filepath.IsAbs(c.Encryption.KeyCommand[0]) {
		d.wrong("encryption.key_command[0]", strconv.Quote(c.Encryption.KeyCommand[0])+" is not an absolute path",
			"write the command from the root, such as /usr/bin/vault")
	}
	if dir, err := filepath.Rel(c.DataDir, c.Encryption.KeyFile); c.Encryption.KeyFile != "" && err == nil && filepath.IsLocal(dir) {
		d.advise("encryption.key_file", "lies in data_dir, so whoever takes the data takes the key with it",
			"keep it elsewhere")
	}
}
