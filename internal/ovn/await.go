package ovn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovs"
)

// installTime is how long OVN is given to install a port: tens of milliseconds on
// an idle fleet, up to twenty seconds have been seen on busy ones. It ends before
// Docker's patience does.
const installTime = 20 * time.Second

// Await implements network.Fabric.
func (f *Fabric) Await(ctx context.Context, n network.Network, id network.EndpointID) error {
	if n.Config.OVN == nil {
		return f.Fabric.Await(ctx, n, id)
	}
	defer f.Outside(ctx, network.ForOVN)()
	limited, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	err := f.Fabric.Await(limited, f.here(n), id)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		var late *ovs.UncopiedError
		if ep, _ := n.Endpoint(id); errors.As(err, &late) && !ep.Observer { // its network is there
			f.cfg.Log.WarnContext(ctx, "a container starts without being copied", "nid", n.ID, "eid", id, "mirror", late.Mirror, "waited", installTime, "err", f.why(ctx))
			return nil
		}
		return f.late(ctx, err)
	}
	return err
}

// late says what OVN has not done in time, and why.
func (f *Fabric) late(ctx context.Context, err error) error {
	var uncopied *ovs.UncopiedError
	if errors.As(err, &uncopied) {
		return fmt.Errorf("ovn-controller has not made mirror %s within %v: %w", uncopied.Mirror, installTime, f.why(ctx))
	}
	return fmt.Errorf("OVN has not installed the port within %v: %w", installTime, f.why(ctx))
}

// why says what is missing for a port to be installed, as far as this host can see.
func (f *Fabric) why(ctx context.Context) error {
	status, err := ovs.Appctl(ctx, f.cfg.RunDir, "ovn-controller", "connection-status")
	switch {
	case err != nil:
		return fmt.Errorf("%w (systemctl status ovn-controller)", err)
	case strings.TrimSpace(status) != "connected":
		c, _ := f.Chassis()
		return fmt.Errorf("ovn-controller is not connected to the southbound database at %s", c.Settings["ovn-remote"])
	}
	return errors.New("ovn-northd does not act on the northbound database, or is far behind (ovn-nbctl --timeout=10 --wait=sb sync)")
}
