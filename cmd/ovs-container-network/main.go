// Command ovs-container-network is the Docker network and IPAM driver for Open
// vSwitch, as a daemon (serve) and as the operator's command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the build.
var version = "dev"

// The main thread cannot end. Goroutines that enter the namespace of a container leave
// their thread to end with them, so none of them may be on it.
func init() { runtime.LockOSThread() }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := newRoot().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errUnhealthy) {
			fmt.Fprintln(os.Stderr, "ovs-container-network:", err)
		}
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ovs-container-network",
		Short: "Docker networks on Open vSwitch",
		Long: `ovs-container-network puts Docker containers on Open vSwitch bridges.

It is a Docker network driver and IPAM driver. The daemon runs as a managed
Docker plugin or as a host service (serve); the other commands ask it what it
does.

  docker network create --driver ovs-container-network --subnet 10.1.0.0/24 web
  docker run -d --network web --name a busybox sleep 1000
  ovs-container-network status`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newServe(), newStatus(), newDoctor(), newGC(), newVersion())
	return root
}

// env is the value of an environment variable, or what is to be used without.
// An empty variable counts as unset: a managed plugin's manifest has to name
// the variables that can be set, with some value.
func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// complete has the shell offer the values of a flag.
func complete(cmd *cobra.Command, flag string, values ...cobra.Completion) {
	// It fails only for a flag that is not there, which the tests would show.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}
