//go:build engine

package dockerwatch

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// TestBehavioursOfDocker shows with a real engine what TestBehaviours shows with
// the fake one. The engine at DOCKERWATCH_HOST should have nothing else to do,
// and an image DOCKERWATCH_IMAGE with a sleep command. The tests on whole hosts
// build this file (tag engine) and run it there.
func TestBehavioursOfDocker(t *testing.T) {
	host, image := os.Getenv("DOCKERWATCH_HOST"), os.Getenv("DOCKERWATCH_IMAGE")
	if host == "" || image == "" {
		t.Fatal("DOCKERWATCH_HOST and DOCKERWATCH_IMAGE name no engine")
	}
	for _, b := range behaviours {
		t.Run(b.name, func(t *testing.T) {
			d := &cli{t: t, host: host, image: image}
			defer b.clean(d)
			show(t, d, host, b.before, b.after, b.want)
		})
	}
}

// cli is a real engine, used through Docker's command.
type cli struct {
	t           *testing.T
	host, image string
}

func (c *cli) docker(args ...string) string {
	c.t.Helper()
	cmd := exec.Command("docker", append([]string{"-H", c.host}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Errorf("docker %s: %v: %s", strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

func (c *cli) Networks() map[network.ID]bool {
	ids := map[network.ID]bool{}
	for _, id := range strings.Fields(c.docker("network", "ls", "-q", "--no-trunc")) {
		ids[network.ID(id)] = true
	}
	return ids
}

func (c *cli) CreateNetwork(name string) { c.docker("network", "create", name) }
func (c *cli) RemoveNetwork(name string) { c.docker("network", "rm", name) }
func (c *cli) Connect(name, net string)  { c.docker("network", "connect", net, name) }
func (c *cli) Rename(from, to string)    { c.docker("rename", from, to) }
func (c *cli) Remove(name string)        { c.docker("rm", "-f", name) }
func (c *cli) Run(name, net string) {
	c.docker("run", "-d", "--name", name, "--net", net, c.image, "sleep", "300")
}
