//go:build linux

package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"time"
)

// results is everything that was measured.
type results struct {
	settings
	Samples map[string]map[string][]float64 `json:"samples_ms"` // by measurement and column
	Values  map[string]map[string][]float64 `json:"values"`     // other numbers, likewise
	Driver  map[string]map[string]histogram `json:"driver_s"`   // what the driver measured of itself
	counted map[string]scrape               // what Driver comes from
	order   []string                        // of counted
}

func newResults(s settings) *results {
	return &results{
		settings: s,
		Samples:  map[string]map[string][]float64{},
		Values:   map[string]map[string][]float64{},
		Driver:   map[string]map[string]histogram{},
		counted:  map[string]scrape{},
	}
}

func (r *results) sample(what, column string, took time.Duration) {
	note(r.Samples, what, column, float64(took.Microseconds())/1000)
}

func (r *results) value(what, column string, v float64) { note(r.Values, what, column, v) }

func note(into map[string]map[string][]float64, what, column string, v float64) {
	if into[what] == nil {
		into[what] = map[string][]float64{}
	}
	into[what][column] = append(into[what][column], v)
}

// driver adds what the driver counted during a measurement.
func (r *results) driver(what string, s scrape) {
	if r.counted[what] == nil {
		r.counted[what] = scrape{}
		r.order = append(r.order, what)
	}
	r.counted[what].add(s)
}

// median of the samples of a column, false if there are none.
func (r *results) median(what, column string) (float64, bool) {
	v := r.Samples[what][column]
	return median(v), len(v) > 0
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// The driver's metrics.
const (
	wholeCall = "ocn_call_seconds"
	ownShare  = "ocn_call_own_seconds"
	waitTime  = "ocn_wait_seconds"
	lookTime  = "ocn_repair_seconds"
	writes    = "ocn_ovsdb_transactions_total"
)

// write writes everything as JSON.
func (r *results) write(path string) error {
	for what, s := range r.counted {
		r.Driver[what] = map[string]histogram{}
		for k, h := range s {
			if h.Count > 0 {
				r.Driver[what][strings.TrimSpace(k.name+" "+k.label)] = h
			}
		}
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
