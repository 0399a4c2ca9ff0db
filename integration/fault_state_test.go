//go:build linux

package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// While the state directory cannot be written, what would have to be remembered
// is refused; a record that cannot be read is reported and left alone. Meanwhile
// containers talk.
func TestFaultsState(t *testing.T) {
	t.Parallel()
	h := newHost(t, service, own)
	s := newScene(t, h)
	s.stateOnSmallDisk()
	s.survives("state directory full", func() {
		h.container("x0", "shop")
		h.sh("dd if=/dev/zero of=" + stateDir + "/filler bs=4k 2>/dev/null || true")
		s.noNews("no space left on device")
		h.diagnoses("state directory cannot be written", "no space left on device", "df -h "+stateDir)
		h.sh("rm " + stateDir + "/filler")
	})
	s.survives("state directory read-only", func() {
		h.container("x0", "shop")
		h.sh("mount --bind " + stateDir + " " + stateDir + " && mount -o remount,bind,ro " + stateDir)
		s.noNews("read-only file system")
		h.diagnoses("state directory cannot be written", "read-only file system", "findmnt -T "+stateDir)
		h.sh("umount " + stateDir)
	})
	s.damagedRecords()
	s.leave()
	h.expectClean()
}

// stateOnSmallDisk moves the state to a file system of its own.
func (s *scene) stateOnSmallDisk() {
	s.t.Helper()
	s.stopDriver()
	s.sh("cp -a " + stateDir + " /tmp/state && mount -t tmpfs -o size=512k,mode=700 state " + stateDir +
		" && cp -a /tmp/state/. " + stateDir + " && rm -r /tmp/state")
	s.startDriver()
}

// noNews checks that new networks and containers are refused with the reason, and
// has container x0 end, of which no record may be possible either.
func (s *scene) noNews(reason string) {
	s.t.Helper()
	s.refused(reason, "network", "create", "-d", "ovs-container-network", "--subnet", "10.3.0.0/24", "--opt", "bridge=br-other", "new")
	for _, network := range []string{"web", "shop"} {
		s.refused(reason, "run", "-d", "--name", "guest", "--network", network, "lab")
	}
	s.docker("rm", "-f", "x0")
}

// damaged is a record that is spoiled.
type damaged struct {
	path string
	good []byte
}

func (s *scene) spoil(path string, how func(good []byte) []byte) damaged {
	s.t.Helper()
	good, err := os.ReadFile(path)
	s.must(err)
	s.must(os.WriteFile(path, how(good), 0o600))
	return damaged{path, good}
}

// damagedRecords spoils an endpoint, a network and a pool: truncated, of a newer
// version, garbage.
func (s *scene) damagedRecords() {
	s.t.Helper()
	s.network("lodge", "--subnet", "10.3.0.0/24")
	s.container("l1", "lodge")
	s.container("l2", "lodge")
	s.residents["l1"], s.residents["l2"] = "lodge", "lodge"
	s.pairs = append(s.pairs, s.converse("l1", "l2", "lodge"))
	s.survives("records truncated, of a newer version and unreadable", func() {
		s.stopDriver()
		pools, err := filepath.Glob(s.record("pools", "*.json"))
		if err != nil || len(pools) != 1 {
			s.t.Fatalf("pools are %v, %v", pools, err)
		}
		all := []damaged{
			s.spoil(s.record("networks", s.netID("web"), "endpoints", s.endID("a2", "web")+".json"), func(good []byte) []byte { return good[:40] }),
			s.spoil(s.record("networks", s.netID("lodge"), "network.json"), func(good []byte) []byte {
				return bytes.Replace(good, []byte(`"version":1`), []byte(`"version":99`), 1)
			}),
			s.spoil(pools[0], func([]byte) []byte { return []byte("null and void") }),
		}
		s.startDriver()
		s.worksBeside(all)
		s.stopDriver()
		for _, d := range all {
			s.must(os.WriteFile(d.path, d.good, 0o600))
		}
		s.startDriver()
	})
}

// worksBeside checks that damaged records are reported and left alone, and that
// all works that does not need them.
func (s *scene) worksBeside(all []damaged) {
	s.t.Helper()
	spoiled := make([][]byte, len(all))
	for i, d := range all {
		inHost := stateDir + strings.TrimPrefix(d.path, s.record())
		if told := strings.Join(s.status().Damaged, "\n"); !strings.Contains(told, inHost) {
			s.t.Errorf("status does not name %s as damaged: %s", inHost, told)
		}
		s.diagnoses("the record cannot be read", inHost)
		var err error
		spoiled[i], err = os.ReadFile(d.path)
		s.must(err)
	}
	s.container("a3", "web")
	s.ping("a3", "a2")
	s.docker("rm", "-f", "a3")
	s.refused("cannot be read", "run", "-d", "--name", "l3", "--network", "lodge", "lab")
	s.refused("pool", "run", "-d", "--name", "b3", "--network", "shop", "lab")
	s.ping("l1", "l2")
	s.talk()
	for i, d := range all {
		if now, err := os.ReadFile(d.path); err != nil || !bytes.Equal(now, spoiled[i]) {
			s.t.Errorf("the damaged record %s was touched: %q, %v", d.path, now, err)
		}
	}
}
