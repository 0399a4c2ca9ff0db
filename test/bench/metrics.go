//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// histogram is a distribution of seconds. Counts are cumulative, and without
// the last bucket, which has no bound.
type histogram struct {
	Bounds, Counts []float64
	Count, Sum     float64
}

// series names a metric with its first label's value.
type series struct{ name, label string }

// scrape is what the driver counted, since its start or between two moments. A
// counter is the Sum of a histogram without more.
type scrape map[series]histogram

// metrics asks the driver. A driver that has none gives an empty scrape.
func metrics(ctx context.Context, h *lab.Host) (scrape, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	t := unixTransport(h, "/run/ovs-container-network/control.sock")
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon/v1/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return parseMetrics(resp.Body)
	case http.StatusNotFound:
		return scrape{}, nil
	}
	return nil, fmt.Errorf("the driver's metrics: %s", resp.Status)
}

// parseMetrics reads the text format. Series that differ in further labels (a
// call's result) are taken together.
func parseMetrics(r io.Reader) (scrape, error) {
	var p expfmt.TextParser
	families, err := p.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("the driver's metrics: %w", err)
	}
	s := scrape{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			k := series{name: name}
			if labels := m.GetLabel(); len(labels) > 0 {
				k.label = labels[0].GetValue()
			}
			s[k] = s[k].plus(parseMetric(m), 1)
		}
	}
	return s, nil
}

func parseMetric(m *dto.Metric) (h histogram) {
	if m.Histogram == nil {
		h.Sum = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		return h
	}
	h.Count, h.Sum = float64(m.Histogram.GetSampleCount()), m.Histogram.GetSampleSum()
	for _, b := range m.Histogram.GetBucket() {
		if !math.IsInf(b.GetUpperBound(), 1) {
			h.Bounds = append(h.Bounds, b.GetUpperBound())
			h.Counts = append(h.Counts, float64(b.GetCumulativeCount()))
		}
	}
	return h
}

// plus is h and factor times other.
func (h histogram) plus(other histogram, factor float64) histogram {
	sum := histogram{Bounds: other.Bounds, Counts: slices.Clone(other.Counts), Count: h.Count + factor*other.Count, Sum: h.Sum + factor*other.Sum}
	for i := range sum.Counts {
		sum.Counts[i] *= factor
		if i < len(h.Counts) {
			sum.Counts[i] += h.Counts[i]
		}
	}
	return sum
}

// since is what was counted after before.
func (s scrape) since(before scrape) scrape {
	d := scrape{}
	for k, h := range s {
		d[k] = h
		if old, ok := before[k]; ok {
			d[k] = h.plus(old, -1)
		}
	}
	return d
}

// add adds what was counted at another time.
func (s scrape) add(other scrape) {
	for k, h := range other {
		s[k] = s[k].plus(h, 1)
	}
}

// total is a counter, over all its labels.
func (s scrape) total(name string) (sum float64) {
	for k, h := range s {
		if k.name == name {
			sum += h.Sum
		}
	}
	return sum
}

// histogram is one of the driver's.
func (s scrape) histogram(name, label string) histogram { return s[series{name, label}] }

// quantile estimates one by linear interpolation within its bucket.
func (h histogram) quantile(q float64) float64 {
	rank := q * h.Count
	lower, below := 0.0, 0.0
	for i, bound := range h.Bounds {
		if n := h.Counts[i]; n >= rank && n > below {
			return lower + (bound-lower)*(rank-below)/(n-below)
		}
		lower, below = bound, h.Counts[i]
	}
	if h.Count == 0 {
		return math.NaN()
	}
	return lower // it lies beyond the last bound
}

// mean is exact, unlike the quantiles.
func (h histogram) mean() float64 { return h.Sum / h.Count }
