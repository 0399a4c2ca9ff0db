//go:build linux

// Command lab starts hosts of the lab for a person to look around in. Unlike
// those of a test they stay until `down`, whatever happens to the terminal.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ovs-container-network/ovs-container-network/test/lab"
)

const usage = `lab up HOST [-bare] [-root SUITE|DIR] [-bind SRC:DST] [-plug IFACE]
                     boot a host, or boot it again with its disk, with Open vSwitch,
                     docker and the image "lab", or none of them (-bare)
lab fleet N [-driver DIR] [-raft] [-tls] [-outside] [-encap TYPE] [-root SUITE]
                     N hosts like that, h1 and so on, which are chassis of an OVN
                     with a central of its own, and the driver running
lab run HOST CMD...  run a command in the host
lab shell HOST       a shell in the host
lab kill HOST        cut the power; up boots it again
lab down [HOST...]   cut the power and throw the hosts away, all of them by default
lab list             the hosts, and the machine's number of their process 1

LAB_DIR is the directory of the lab, by default ` + lab.DefaultDir + `/mine;
for a test that stands still, the directory of its lab.
`

func main() {
	lab.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] != "list" && args[0] != "down" && len(args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		return errors.New("what shall I do?")
	}
	l, err := lab.Open(os.Getenv("LAB_DIR"))
	if err != nil {
		return err
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "up":
		return up(ctx, l, args[0], args[1:])
	case "fleet":
		return fleet(ctx, l, args[0], args[1:])
	case "list":
		return list(l)
	case "down":
		return down(l, args)
	}
	h := l.Hosts()[args[0]]
	if h == nil {
		return fmt.Errorf("no host %s: try lab list", args[0])
	}
	switch verb {
	case "run":
		if len(args) < 2 {
			return errors.New("run: no command")
		}
		return h.Exec(args[1:]...)
	case "shell":
		return h.Exec("sh", "-c", shell)
	case "kill":
		return h.Kill()
	}
	return fmt.Errorf("no command %q", verb)
}

// shell is an interactive one. In a host of a fleet, ovn-nbctl finds the central.
const shell = `
nb=$(ovs-vsctl --timeout=2 --if-exists get Open_vSwitch . external_ids:ovn-nb 2>/dev/null | tr -d '"')
case $nb in
ssl:*) export OVN_NB_DB=$nb OVN_NBCTL_OPTIONS="-p ` + lab.KeyFile + ` -c ` + lab.CertFile + ` -C ` + lab.CAFile + `" ;;
?*) export OVN_NB_DB=$nb ;;
esac
PS1="\h:\w# " exec bash --norc -i || exec sh -i`

// values collects a flag that may be given more than once.
type values []string

func (v *values) String() string     { return strings.Join(*v, " ") }
func (v *values) Set(s string) error { *v = append(*v, s); return nil }

func up(ctx context.Context, l *lab.Lab, name string, args []string) error {
	var binds, ifaces values
	f := flag.NewFlagSet("lab up", flag.ContinueOnError)
	bare := f.Bool("bare", false, "start no daemon")
	root := f.String("root", "", "suite of Debian, or a directory with a root")
	f.Var(&binds, "bind", "SRC:DST, show a file or directory in the host")
	f.Var(&ifaces, "plug", "interface joined to the lab's switch")
	if err := f.Parse(args); err != nil {
		return err
	}
	opts, err := options(*root, binds)
	if err != nil {
		return err
	}
	h, err := l.Host(ctx, name, opts...)
	if err != nil {
		return err
	}
	for _, i := range ifaces {
		if err := h.Plug(ctx, i, 1600); err != nil {
			return err
		}
	}
	if *bare {
		return nil
	}
	if err := h.StartOVS(ctx); err != nil {
		return err
	}
	if err := h.StartDocker(ctx); err != nil {
		return err
	}
	image, err := lab.Image(ctx, filepath.Join(lab.DefaultDir, "images"))
	if err != nil {
		return err
	}
	return h.ImportImage(ctx, image, "lab")
}

func options(root string, binds []string) ([]lab.Option, error) {
	var opts []lab.Option
	switch {
	case filepath.IsAbs(root):
		opts = append(opts, lab.WithRoot(root))
	case root != "":
		dir, err := lab.Suite(root)
		if err != nil {
			return nil, err
		}
		opts = append(opts, lab.WithRoot(dir))
	}
	for _, b := range binds {
		src, dst, ok := strings.Cut(b, ":")
		if !ok || !filepath.IsAbs(src) || !filepath.IsAbs(dst) {
			return nil, fmt.Errorf("-bind %q: want SRC:DST, two absolute paths", b)
		}
		opts = append(opts, lab.WithBind(src, dst))
	}
	return opts, nil
}

func list(l *lab.Lab) error {
	hosts := l.Hosts()
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		state := "off"
		if pid := hosts[name].NSPID(); pid != 0 {
			state = fmt.Sprint(pid)
		}
		fmt.Printf("%-12s %s\n", name, state)
	}
	return nil
}

func down(l *lab.Lab, names []string) error {
	if len(names) == 0 {
		return l.Close()
	}
	for _, n := range names {
		h := l.Hosts()[n]
		if h == nil {
			return fmt.Errorf("no host %s", n)
		}
		if err := h.Remove(); err != nil {
			return err
		}
	}
	return nil
}
