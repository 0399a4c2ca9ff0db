//go:build linux

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What package dockerwatch learns from its fake engine it learns from real ones:
// its own table of behaviours, run on an old and a new engine.
func TestWatchedEngines(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(build, "dockerwatch.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "engine", "-o", bin, "../internal/dockerwatch")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, on := range []suite{own, newer} {
		t.Run("engine of "+string(on), func(t *testing.T) {
			t.Parallel()
			h := bareHost(t, service, on)
			h.startDocker()
			h.must(h.ImportImage(h.ctx(), image, "lab"))
			h.sh("DOCKERWATCH_HOST=unix:///run/docker.sock DOCKERWATCH_IMAGE=lab " + buildDir + "/dockerwatch.test -test.v -test.run TestBehavioursOfDocker")
		})
	}
}
