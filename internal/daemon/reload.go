package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/godwit-mta/godwit/api"
	"github.com/godwit-mta/godwit/internal/config"
)

// reloadConfig does what [Daemon.Reload] has put on record.
func (d *Daemon) reloadConfig(ctx context.Context) (api.ReloadResult, error) {
	d.reload.Lock()
	defer d.reload.Unlock()
	res := api.ReloadResult{Changed: []string{}, NeedRestart: []string{}}
	r := d.state.Load()
	if r == nil {
		return res, &api.Problem{Status: http.StatusServiceUnavailable, Title: "Not ready", Detail: "the server is starting or stopping"}
	}
	if d.o.Load == nil {
		return res, &api.Problem{Status: http.StatusConflict, Title: "Cannot reload", Detail: "this server runs without a configuration file"}
	}
	next, err := d.o.Load()
	if err != nil {
		return res, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "Bad configuration", Detail: err.Error()}
	}
	old := d.cfg.Load()
	for _, c := range config.Diff(old, next) {
		if c.Restart {
			res.NeedRestart = append(res.NeedRestart, c.Key)
		} else {
			res.Changed = append(res.Changed, c.Key)
		}
	}
	if err := r.follow(next); err != nil {
		// The parts that had followed go back to what they had, which they have taken once.
		return api.ReloadResult{}, &api.Problem{
			Status: http.StatusUnprocessableEntity, Title: "Bad configuration", Detail: errors.Join(err, r.follow(old)).Error(),
		}
	}
	if d.o.Level != nil {
		d.o.Level.Set(next.Log.SlogLevel())
	}
	r.events.Reopen() // whoever moved the file away expects a new one
	d.cfg.Store(next)
	d.log.InfoContext(ctx, "configuration reloaded", "changed", res.Changed, "need_restart", res.NeedRestart)
	return res, nil
}

// follow hands each part its share of a configuration.
func (r *running) follow(cfg *config.Config) error {
	if err := r.followTransport(cfg); err != nil {
		return err
	}
	if err := r.reports.SetSettings(reportSettings(cfg)); err != nil {
		return err
	}
	if err := r.queue.SetSettings(r.d.queueSettings(cfg)); err != nil {
		return err
	}
	if err := r.events.SetLimits(eventLimits(cfg)); err != nil {
		return err
	}
	if err := r.door.follow(cfg, r.d.log); err != nil {
		return err
	}
	for _, in := range r.d.inlets {
		if err := in.follow(cfg); err != nil {
			return fmt.Errorf("listener %s: %w", in.name, err)
		}
	}
	return nil
}
