package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/ovs-container-network/ovs-container-network/internal/dockerapi"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovn"
)

// metrics are those of all parts, served in Prometheus' text format.
func metrics(api *dockerapi.Metrics, core *network.Metrics, fabric *ovn.Fabric, manager *network.Manager) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(
		api.Calls, api.Own, api.Active, core.Repair, core.Waits,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ocn_ovsdb_transactions_total", Help: "Transactions sent to Open vSwitch's database.",
		}, func() float64 { return float64(fabric.Transactions()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ocn_networks", Help: "Networks known."}, func() float64 {
			networks, _ := manager.Count()
			return float64(networks)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ocn_endpoints", Help: "Endpoints known, in any phase."}, func() float64 {
			_, endpoints := manager.Count()
			return float64(endpoints)
		}),
	)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		families, err := r.Gather()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
		for _, f := range families {
			if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
				return // the caller is gone
			}
		}
	})
}
