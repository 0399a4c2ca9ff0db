//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

// programs is where a host sees the directory of the driver.
const programs = "/opt/ocn"

// startDriver starts the driver as a service of the host does, and waits until
// it answers.
const startDriver = `
ln -sf ` + programs + `/ovs-container-network /usr/local/bin/
ovs-container-network status >/dev/null 2>&1 && exit
setsid ovs-container-network serve </dev/null >>/var/log/ocn.log 2>&1 &
for i in $(seq 150); do
	ovs-container-network status >/dev/null 2>&1 && exit
	sleep 0.1
done
echo "the driver does not answer:"
tail -n 20 /var/log/ocn.log
exit 1
`

// fleet starts hosts with a central, or completes those that are there.
func fleet(ctx context.Context, l *lab.Lab, count string, args []string) error {
	began := time.Now()
	n, err := strconv.Atoi(count)
	if err != nil {
		return fmt.Errorf("fleet %q: how many hosts?", count)
	}
	o := lab.FleetOptions{Docker: true}
	f := flag.NewFlagSet("lab fleet", flag.ContinueOnError)
	driver := f.String("driver", "", "directory with the driver's binary: the driver runs on each host")
	outside := f.Bool("outside", false, "a router and VLAN 42 outside, bridge mapping "+lab.PhysNet)
	f.BoolVar(&o.RAFT, "raft", false, "three central hosts instead of one")
	f.BoolVar(&o.TLS, "tls", false, "databases that speak TLS")
	f.StringVar(&o.Encap, "encap", "geneve", "geneve or vxlan")
	f.StringVar(&o.Root, "root", "", "suite of Debian for the hosts")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *driver != "" {
		dir, err := filepath.Abs(*driver)
		if err != nil {
			return err
		}
		o.Host = append(o.Host, lab.WithBind(dir, programs))
	}
	if o.Image, err = lab.Image(ctx, filepath.Join(lab.DefaultDir, "images")); err != nil {
		return err
	}
	fl, err := l.Fleet(ctx, n, o)
	if err != nil {
		return err
	}
	if *outside {
		if _, err := l.StartOutside(ctx, lab.Outside{Hosts: fl.Hosts}); err != nil {
			return err
		}
	}
	if *driver != "" {
		if err := startDrivers(ctx, fl); err != nil {
			return err
		}
	}
	describe(fl, time.Since(began), *driver != "", *outside)
	return nil
}

func startDrivers(ctx context.Context, f *lab.Fleet) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range f.Hosts {
		g.Go(func() error {
			_, err := h.Shell(ctx, startDriver)
			return err
		})
	}
	return g.Wait()
}

// describe tells a person what there is and what to type.
func describe(f *lab.Fleet, took time.Duration, driver, outside bool) {
	fmt.Printf("%d hosts and their central run after %.1f s.\n\n", len(f.Hosts), took.Seconds())
	for _, h := range f.Hosts {
		fmt.Printf("    sudo bin/lab shell %-4s # %s\n", h.Name(), f.ChassisOf(h).EncapIP)
	}
	for _, h := range f.Central {
		fmt.Printf("    sudo bin/lab shell %-4s # %s, central\n", h.Name(), f.CentralOf(h).Addr)
	}
	fmt.Printf("\nThe northbound database is %s.\n", f.NB)
	if outside {
		fmt.Printf("Outside, on %s: a router %s, what is behind it %s, and in VLAN 42 10.42.0.1.\n", lab.PhysNet, lab.RouterIP, lab.BehindIP)
	}
	fmt.Printf("\nFor example:\n    sudo bin/lab run %s ovn-sbctl --no-leader-only show\n", f.Central[0].Name())
	if driver && len(f.Hosts) > 0 {
		fmt.Print(`    sudo bin/lab run h1 docker network create -d ovs-container-network --subnet 10.1.0.0/24 web
    sudo bin/lab run h1 docker run -d --name aa --network web lab
    sudo bin/lab run h1 docker run --rm --network web lab ping -c 1 aa
    sudo bin/lab run h1 tail -n 5 /var/log/ocn.log
`)
	}
	fmt.Println("\nsudo make lab-clean removes it all.")
}
