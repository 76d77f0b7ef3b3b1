package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/godwit-mta/godwit/api"
)

const (
	defaultRecords = 100
	maxRecords     = 1_000
)

// audit lists administrative acts.
func (h *handler) audit(c *call) (any, error) {
	v := c.URL.Query()
	q := api.AuditQuery{Action: v.Get("action"), Actor: v.Get("actor")}
	var err error
	if q.Limit, err = number(v.Get("limit"), defaultRecords, maxRecords); err != nil {
		return nil, err
	}
	if s := v.Get("after"); s != "" {
		if q.After, err = strconv.ParseUint(s, 10, 64); err != nil {
			return nil, problem(http.StatusUnprocessableEntity, "after %q is not the index of a record", s)
		}
	}
	if s := v.Get("since"); s != "" {
		if q.Since, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return nil, problem(http.StatusUnprocessableEntity, "since %q is not a time such as 2026-11-22T10:00:00Z", s)
		}
	}
	return h.server.Audit(c.Context(), q)
}

func (h *handler) verifyAudit(c *call) (any, error) { return h.server.VerifyAudit(c.Context()) }

func (h *handler) keys(c *call) (any, error) { return h.server.Keys(c.Context()) }

// rotateKeys makes a new data key, on record.
func (h *handler) rotateKeys(c *call) (any, error) {
	var out api.KeyList
	err := h.auditor.Do(c.Context(), c.Caller.Act("key.rotate", ""), func(ctx context.Context) (any, error) {
		var err error
		out, err = h.server.RotateKeys(ctx)
		return out, err
	})
	return out, err
}

// reload has the configuration read again; the server records it, as it does when a signal asks.
func (h *handler) reload(c *call) (any, error) {
	return h.server.Reload(c.Context(), c.Caller.Act("config.reload", ""))
}
