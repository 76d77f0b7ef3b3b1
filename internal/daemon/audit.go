package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/audit"
	"github.com/godwit-mta/godwit/internal/config"
	"github.com/godwit-mta/godwit/internal/httpapi"
)

// openAudit opens the record of administrative acts.
func (d *Daemon) openAudit(cfg *config.Config) error {
	var err error
	d.audit, err = audit.Open(audit.Options{
		Store: d.store, Anchor: cfg.AnchorFile(), Key: cfg.Audit.KeyFile, Logger: d.log, Registerer: d.metrics,
	})
	return err
}

// adminOptions make the administrators' interface for the admin socket.
func (d *Daemon) adminOptions(r *running) httpapi.Options {
	return httpapi.Options{
		Server: &admin{d: d, r: r}, Auditor: d.audit, Logger: d.log,
		Directory: r.door.directory, Submission: d.submissionServers, Limits: r.door.limits,
		Doctor: physician{r}, DKIM: r.door.signs.ring, Policies: r.transport.served(), Floors: r.transport, Reports: r.reports,
	}
}

// audited is what a record says of the server's own state.
type audited struct {
	Version string   `json:"version,omitempty"`
	File    string   `json:"file,omitempty"`
	Config  string   `json:"config_sha256"` // of "config show" without origins
	Reason  string   `json:"reason,omitempty"`
	Changed []string `json:"changed,omitempty"`
}

// configSum is the SHA-256 of all effective values, whatever file they come from.
func configSum(cfg *config.Config) string {
	var b bytes.Buffer
	for _, v := range cfg.Values() {
		fmt.Fprintf(&b, "%s: %s\n", v.Key, v.Value)
	}
	sum := sha256.Sum256(b.Bytes())
	return hex.EncodeToString(sum[:])
}

// owner is the user whose process this is.
func owner() string {
	id := strconv.Itoa(os.Getuid())
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}

// recordStart puts the start on record; without it nothing begins.
func (d *Daemon) recordStart(ctx context.Context, cfg *config.Config) error {
	return d.audit.Append(ctx, audit.Act{
		Actor: owner(), Source: "process", Action: "server.start", Target: cfg.Hostname,
		After: audited{Version: d.o.Version, File: cfg.File(), Config: configSum(cfg)},
	})
}

// recordStop puts the end on record, as far as that is still possible.
func (d *Daemon) recordStop(cause error) {
	cfg, reason := d.cfg.Load(), ""
	if cause != nil {
		reason = cause.Error()
	}
	err := d.audit.Append(context.Background(), audit.Act{
		Actor: owner(), Source: "process", Action: "server.stop", Target: cfg.Hostname,
		After: audited{Version: d.o.Version, Config: configSum(cfg), Reason: reason},
	})
	if err != nil {
		d.log.Warn("the stop of the server is not on record", "error", err)
	}
}

// Reload reads the configuration again and takes over what can change while the server runs, on record as by's act. If the file
// is not good, or any part does not take its share, everything stays as it was and the error says why. An act without an actor
// is that of whoever sent the signal.
func (d *Daemon) Reload(ctx context.Context, by audit.Act) (api.ReloadResult, error) {
	if by.Actor == "" {
		by.Actor, by.Source = owner(), "signal"
	}
	by.Action = "config.reload"
	by.Before = audited{Config: configSum(d.cfg.Load())}
	var res api.ReloadResult
	err := d.audit.Do(ctx, by, func(ctx context.Context) (any, error) {
		old := d.cfg.Load()
		var err error
		if res, err = d.reloadConfig(ctx); err != nil {
			return nil, err
		}
		next := d.cfg.Load()
		return struct {
			audited
			Values []config.Change `json:"values,omitempty"`
		}{audited{File: next.File(), Config: configSum(next)}, config.Diff(old, next)}, nil
	})
	return res, err
}

// Audit answers the administrators' interface.
func (a *admin) Audit(ctx context.Context, q api.AuditQuery) (api.AuditList, error) {
	out := api.AuditList{Records: []api.AuditRecord{}}
	for r, err := range a.d.audit.Records(ctx, q.After+1) {
		if err != nil {
			return out, fmt.Errorf("reading the audit chain: %w", err)
		}
		if !auditWanted(&r, &q) {
			continue
		}
		if len(out.Records) == q.Limit {
			out.More = true
			break
		}
		out.Records = append(out.Records, api.AuditRecord{
			Index: r.Index, Time: r.Time, Actor: r.Actor, Source: r.Source, Action: r.Action, Target: r.Target,
			Before: r.Before, After: r.After, Of: r.Of, Error: r.Error, Previous: r.Previous.String(), Hash: r.Hash.String(),
		})
	}
	return out, nil
}

func auditWanted(r *audit.Record, q *api.AuditQuery) bool {
	return !r.Time.Before(q.Since) && (q.Actor == "" || r.Actor == q.Actor) &&
		(q.Action == "" || r.Action == q.Action || strings.HasPrefix(r.Action, q.Action+"."))
}

// VerifyAudit answers the administrators' interface.
func (a *admin) VerifyAudit(ctx context.Context) (api.AuditReport, error) {
	cfg := a.d.o.Config
	anchors, err := ReadAnchors(cfg)
	if err != nil {
		return api.AuditReport{}, err
	}
	rep, err := audit.VerifyStore(ctx, a.d.store, anchors)
	if err != nil {
		return api.AuditReport{}, fmt.Errorf("reading the audit chain: %w", err)
	}
	return AuditReport(cfg, &rep), nil
}

// ReadAnchors returns the anchors of a configuration's audit chain; none if the file does not exist.
func ReadAnchors(cfg *config.Config) ([]audit.Anchor, error) {
	f, err := os.Open(cfg.AnchorFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("audit anchor: %w", err)
	}
	defer f.Close()
	return audit.ReadAnchors(f)
}

// AuditReport puts a report into the words of the interface.
func AuditReport(cfg *config.Config, rep *audit.Report) api.AuditReport {
	out := api.AuditReport{
		First: rep.First, Last: rep.Last, Anchored: rep.Anchored, Anchors: rep.Anchors, AnchorFile: cfg.AnchorFile(),
		Key: rep.Key, Bad: rep.Bad, Problem: rep.Problem,
	}
	rel, err := filepath.Rel(cfg.DataDir, cfg.AnchorFile())
	switch {
	case rep.Unsigned:
		out.Advice = "there is no anchor, so a chain whose end is missing is not found"
	case err == nil && filepath.IsLocal(rel):
		out.Advice = "the anchor lies in data_dir, so a whole directory that was put back is not found: set audit.anchor"
	}
	return out
}
