package network_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// threeNetworks makes one network that publishes ports and those that do not.
func (r *rig) threeNetworks() {
	r.t.Helper()
	r.create("docker", "10.0.0.0/24")
	r.create("none", "10.0.1.0/24", "gateway_mode=none")
	r.create("external", "10.0.2.0/24", "gateway_mode=external")
	if err := r.CreateNetwork(r.t.Context(), CreateRequest{ID: nid("internal"), Internal: true, Subnets: subnets("10.0.3.0/24")}); err != nil {
		r.t.Fatal(err)
	}
}

func waiting(container string, elsewhere bool, networks ...string) Waiting {
	w := Waiting{Container: container, Elsewhere: elsewhere}
	for _, n := range networks {
		w.Networks = append(w.Networks, nid(n))
	}
	return w
}

// told passes on what Docker answers to a question that comes after the call.
func (r *rig) told(containers []Waiting) { r.Waiting(time.Now().Add(time.Minute), containers, false) }

// Ports that nothing would publish are refused when that is certain: every
// container that may be the one which starts has only networks that do not. They
// are taken where another network publishes them, and where nothing is known.
func TestPublishedPorts(t *testing.T) {
	for name, c := range map[string]struct {
		network string
		known   []Waiting // nil: nothing is known
		word    string    // of the refusal, empty: taken
	}{
		"docker":             {"docker", []Waiting{waiting("a", false, "docker")}, ""},
		"none":               {"none", []Waiting{waiting("a", false, "none")}, "gateway_mode=none"},
		"external":           {"external", []Waiting{waiting("a", false, "external")}, "gateway_mode=external"},
		"internal":           {"internal", []Waiting{waiting("a", false, "internal")}, "--internal"},
		"none twice":         {"none", []Waiting{waiting("a", false, "none", "external", "internal")}, "gateway_mode=none"},
		"docker too":         {"none", []Waiting{waiting("a", false, "none", "docker")}, ""},
		"bridge too":         {"none", []Waiting{waiting("a", true, "none")}, ""},
		"all without":        {"none", []Waiting{waiting("a", false, "none"), waiting("b", false, "none", "external")}, "gateway_mode=none"},
		"one of them with":   {"none", []Waiting{waiting("a", false, "none"), waiting("b", false, "none", "docker")}, ""},
		"others":             {"none", []Waiting{waiting("a", false, "none"), waiting("b", true, "external")}, "gateway_mode=none"},
		"docker, external":   {"docker", []Waiting{waiting("a", false, "docker", "external")}, ""},
		"external, docker":   {"external", []Waiting{waiting("a", false, "docker", "external")}, ""},
		"external, bridge":   {"external", []Waiting{waiting("a", true, "external")}, ""},
		"docker, unknown":    {"docker", []Waiting{}, ""},
		"docker, of another": {"docker", []Waiting{waiting("a", false, "external")}, ""},
		"unknown network":    {"none", []Waiting{waiting("a", false, "none", "gone")}, "gateway_mode=none"},
		"no candidate":       {"none", []Waiting{}, ""},
		"nothing known":      {"none", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.threeNetworks()
				r.told(c.known)
				req := endpointRequest(c.network, "a", "")
				req.Published = 1
				_, err := r.CreateEndpoint(t.Context(), req)
				if c.word != "" {
					refused(t, err, "published ports (-p) would be ignored", c.word, "leave out")
				} else if err != nil {
					t.Error(err)
				}
				if _, there := r.findEndpoint("a"); there != (err == nil) {
					t.Errorf("the endpoint is there: %v", there)
				}
				r.check()
				req.ID, req.Published = eid("b"), 0
				if _, err := r.CreateEndpoint(t.Context(), req); err != nil {
					t.Errorf("without -p: %v", err)
				}
			})
		})
	}
}

// News of the container that starts may come a moment later than the call, or
// later still if they are known to come.
func TestPublishedPortsLateNews(t *testing.T) {
	for _, more := range []bool{false, true} {
		lateNews(t, more)
	}
}

func lateNews(t *testing.T, more bool) {
	late := 100 * time.Millisecond
	if more {
		late = time.Second
	}
	for name, news := range map[string][]Waiting{
		"refused": {waiting("a", false, "none")}, "taken": {waiting("a", false, "none", "docker")}, "lost": nil,
	} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.threeNetworks()
			r.Waiting(time.Now(), []Waiting{waiting("a", false, "none")}, more) // too old to count
			req := endpointRequest("none", "a", "")
			req.Published = 1
			result := make(chan error, 1)
			go func() {
				_, err := r.CreateEndpoint(t.Context(), req)
				result <- err
			}()
			synctest.Wait()
			time.Sleep(late)
			r.told(news)
			if err := <-result; (err != nil) != (name == "refused") {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// A container is never held up for long by a look that does not come, and not at
// all where its ports can be published or nothing would be known.
func TestPublishedPortsDoNotWait(t *testing.T) {
	for name, c := range map[string]struct {
		network string
		known   bool
		limit   time.Duration
	}{"publishes": {"docker", true, 0}, "nothing known": {"none", false, 0}, "no news": {"none", true, time.Second}} {
		inBubble(t, func(t *testing.T, r *rig) {
			r.threeNetworks()
			if c.known {
				r.Waiting(time.Now(), []Waiting{waiting("a", false, "none")}, false)
			}
			start := time.Now()
			req := endpointRequest(c.network, "a", "")
			req.Published = 1
			_, err := r.CreateEndpoint(t.Context(), req)
			if took := time.Since(start); err != nil || took > c.limit {
				t.Errorf("%s: %v after %v", name, err, took)
			}
		})
	}
}

// An internal network hides -p until Join, which tells the ports of the whole
// container: refused where no other network can publish them, taken where its
// sandbox has another interface.
func TestPublishedPortsOnJoin(t *testing.T) {
	join := func(ctx context.Context, r *rig, alone bool) error {
		_, err := r.Join(ctx, JoinRequest{Network: nid("internal"), ID: eid("a"), Sandbox: sandbox("a"), Published: 1, Alone: alone})
		return err
	}
	for name, c := range map[string]struct {
		first   string // joined before
		alone   bool
		refused bool
	}{
		"alone": {"", true, true}, "not alone": {"", false, false},
		"none first": {"none", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.threeNetworks()
				r.told([]Waiting{waiting("a", false, "internal", "none")})
				if c.first != "" {
					r.endpoint(c.first, "first", "")
					if _, err := r.Join(t.Context(), JoinRequest{Network: nid(c.first), ID: eid("first"), Sandbox: sandbox("a")}); err != nil {
						t.Fatal(err)
					}
				}
				r.endpoint("internal", "a", "")
				err := join(t.Context(), r, c.alone)
				if c.refused {
					refused(t, err, "(-p)", "--internal")
				} else if err != nil {
					t.Error(err)
				}
				r.settle()
				if _, there := r.findEndpoint("a"); there == c.refused {
					t.Errorf("the endpoint is there: %v", there)
				}
				r.check()
			})
		})
	}
}

// An endpoint of another container publishes nothing for this one.
func TestPublishedPortsOfOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.threeNetworks()
		r.told([]Waiting{waiting("a", false, "internal")})
		r.join("docker", "other", "10.0.0.2/24")
		r.endpoint("internal", "a", "")
		_, err := r.Join(t.Context(), JoinRequest{Network: nid("internal"), ID: eid("a"), Sandbox: sandbox("a"), Published: 1, Alone: true})
		refused(t, err, "--internal")
	})
}

// Names and container ids from Docker's events reach the records and the ports;
// equal ones cost nothing, and those of unknown networks are no fault.
func TestAnnotate(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("n", "10.0.0.0/24")
		r.join("n", "a", "10.0.0.2/24")
		news := map[EndpointID]Container{eid("a"): {ID: "c1", Name: "web"}, eid("unknown"): {ID: "c2", Name: "x"}}
		for range 2 {
			if err := r.Annotate(nid("n"), "blue", news); err != nil {
				t.Fatal(err)
			}
			r.settle()
		}
		r.check()
		for _, want := range []string{"network_name:blue", "container_id:c1", "container_name:web"} {
			if !strings.Contains(r.fabric.String(), want) {
				t.Errorf("the port has no %s:\n%s", want, r.fabric)
			}
		}
		writes := r.store.writes
		if err := r.Annotate(nid("n"), "blue", news); err != nil || r.store.writes != writes {
			t.Errorf("equal news: %v, %d writes", err, r.store.writes-writes)
		}
		if err := r.Annotate(nid("n"), "", map[EndpointID]Container{eid("a"): {ID: "c1", Name: "renamed"}}); err != nil {
			t.Error(err)
		}
		if err := r.Annotate(nid("other"), "x", news); err != nil {
			t.Error(err)
		}
		r.settle()
		r.check()
		if n, _ := r.find("n"); n.Name != "blue" || n.Title() != "network blue" || n.Endpoints[eid("a")].Title() != "container renamed" {
			t.Errorf("got %s, %s", n.Title(), n.Endpoints[eid("a")].Title())
		}
		r.store.failOn()
		refused(t, r.Annotate(nid("n"), "red", nil), errDisk.Error())
		r.store.mend()
		r.settle()
		r.check()
	})
}

// Containers that would be refused are named, so that they are kept an eye on.
func TestPublishedPortsSuspects(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.threeNetworks()
		got := r.Waiting(time.Now(), []Waiting{
			waiting("a", false, "none"), waiting("b", true, "none"), waiting("c", false, "internal", "docker"),
			waiting("d", false, "internal", "external"), waiting("e", true), waiting("f", false),
		}, false)
		if strings.Join(got, " ") != "a d" {
			t.Errorf("named are %v, want a and d", got)
		}
	})
}
