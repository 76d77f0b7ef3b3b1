package api

import (
	"context"
	"net/http"
	"time"
)

// RelayReport is what a server found when it tried to misuse its own listeners.
type RelayReport struct {
	Open      bool            `json:"open"` // somebody could send who should not
	Time      time.Time       `json:"time"`
	Listeners []RelayListener `json:"listeners"`
}

// RelayListener is one listener in a RelayReport.
type RelayListener struct {
	Listener string         `json:"listener"`
	Address  string         `json:"address"`
	From     string         `json:"from"`           // whence it was tried
	Note     string         `json:"note,omitempty"` // what limits the meaning of the result
	Error    string         `json:"error,omitempty"`
	Probes   int            `json:"probes"`
	Open     []RelayFinding `json:"open"`
}

// RelayFinding is a probe that was let through.
type RelayFinding struct {
	Probe string `json:"probe"` // its number and what it tries
	Reply string `json:"reply"`
}

// DoctorRelay lets the server try its listeners now.
func (c *Client) DoctorRelay(ctx context.Context) (RelayReport, error) {
	return call[RelayReport](ctx, c, http.MethodPost, "/v1/doctor/relay", nil)
}

// Finding is something about the server that a person must look at.
type Finding struct {
	Subject string     `json:"subject"` // certificate, relay, journal, audit, dkim
	Name    string     `json:"name"`    // which one: a certificate, a listener
	Problem string     `json:"problem"`
	Advice  string     `json:"advice"`
	Since   *time.Time `json:"since,omitempty"`
	Grave   bool       `json:"grave"`
}

// FindingList is what is wrong now.
type FindingList struct {
	Findings []Finding `json:"findings"`
}

// Findings tells what a person must look at.
func (c *Client) Findings(ctx context.Context) (FindingList, error) {
	return call[FindingList](ctx, c, http.MethodGet, "/v1/findings", nil)
}
