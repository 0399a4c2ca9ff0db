package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/diag"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
	"github.com/ovs-container-network/ovs-container-network/internal/ovn"
)

// What is wrong with this chassis is a fault; one elsewhere that is dead is advice,
// unless a network of this host counts on it.
func TestCheckFleet(t *testing.T) {
	now := time.UnixMilli(1700000000000)
	member := func(name, ip string, behind int) ovn.Member {
		return ovn.Member{
			Name: name, Hostname: name + ".example", Encaps: []ovn.Tunnel{{Type: "geneve", IP: ip}}, Version: "22.09+",
			Seen: now.Add(-5 * time.Minute), Behind: behind,
		}
	}
	h1, h2 := member("h1", "10.99.0.1", 0), member("h2", "10.99.0.2", 0)
	here := local{name: "h1", encaps: []string{"10.99.0.1"}}
	for _, c := range []struct {
		what     string
		fleet    ovn.Fleet
		here     local
		gateways map[string]string
		want     []string // severity, and words of one finding each
	}{
		{"all is well", ovn.Fleet{Chassis: []ovn.Member{h1, h2}}, here, map[string]string{"h1": "web", "h2": "web"}, nil},
		{"on a single host", ovn.Fleet{Chassis: []ovn.Member{member("h1", "127.0.0.1", 0), member("h9", "127.0.0.1", 0)}}, local{name: "h1", encaps: []string{"127.0.0.1"}}, nil, nil},
		{"another is dead", ovn.Fleet{Chassis: []ovn.Member{h1, member("h2", "10.99.0.2", 3)}}, here, nil,
			[]string{"advice: chassis h2: chassis h2 does not answer [geneve 10.99.0.2, OVN 22.09+, its last sign of life was 5m0s ago] on host h2.example: systemctl restart ovn-controller; gc --chassis h2"}},
		{"nobody may answer", ovn.Fleet{Mute: true, Chassis: []ovn.Member{member("h1", "10.99.0.1", 3), member("h2", "10.99.0.2", 3)}}, here, nil, nil},
		{"a gateway is dead", ovn.Fleet{Chassis: []ovn.Member{h1, member("h2", "10.99.0.2", 3)}}, here, map[string]string{"h2": "web"},
			[]string{"fault: chassis h2: chassis h2 does not answer; it is to be a gateway of network web"}},
		{"a gateway is not there", ovn.Fleet{Chassis: []ovn.Member{h1, h2}}, here, map[string]string{"h7": "web"},
			[]string{"fault: network web: ovn.gateway_chassis names h7, and there is no such chassis [there are h1, h2]"}},
		{"not registered", ovn.Fleet{Chassis: []ovn.Member{h2}}, here, nil,
			[]string{"fault: chassis h1: this host is not registered as chassis h1 [registered are h2]"}},
		{"an earlier life has the address", ovn.Fleet{Chassis: []ovn.Member{h2, member("old", "10.99.0.1", 0)}}, here, nil,
			[]string{"fault: chassis h1: not registered", "fault: chassis old: has the tunnel address 10.99.0.1 of this host gc --chassis old"}},
		{"two hosts of one name", ovn.Fleet{Chassis: []ovn.Member{member("h1", "10.99.0.9", 0)}}, here, nil,
			[]string{"fault: chassis h1: another host has the same system-id [registered: geneve 10.99.0.9, here: 10.99.0.1]"}},
		{"this one hangs", ovn.Fleet{Chassis: []ovn.Member{member("h1", "10.99.0.1", 1)}}, here, nil,
			[]string{"fault: chassis h1: ovn-controller of this host is connected and does not follow changes"}},
		{"no link has the address", ovn.Fleet{Chassis: []ovn.Member{h1}}, local{name: "h1", encaps: []string{"10.99.0.1"}, missing: []string{"10.99.0.1"}}, nil,
			[]string{"fault: chassis h1: no link of this host has the address 10.99.0.1 ip addr add"}},
	} {
		found := checkFleet(c.fleet, c.here, c.gateways, now)
		for i := range found {
			if found[i].Severity == "" {
				found[i].Severity = diag.Fault
			}
		}
		if len(found) != len(c.want) {
			t.Errorf("%s: found %v, want %q", c.what, found, c.want)
			continue
		}
		for i, want := range c.want {
			f := found[i]
			all := fmt.Sprintf("%s: %s: %s %s %s", f.Severity, f.Subject, f.Cause, f.Evidence, f.Mend)
			for word := range strings.FieldsSeq(want) {
				if !strings.Contains(all, strings.TrimRight(word, ";")) {
					t.Errorf("%s: %s does not say %s", c.what, all, word)
				}
			}
			if len(f.Mend) == 0 {
				t.Errorf("%s: nothing mends it: %s", c.what, all)
			}
		}
	}
}

// A clash names the container, and what to do.
func TestClashFindings(t *testing.T) {
	n := network.Report{Name: "web", Switch: "ls1", Ends: []network.EndpointReport{{ID: "e1", Container: "shop"}}}
	for _, c := range []struct {
		clash ovn.Clash
		want  []string
	}{
		{ovn.Clash{Endpoint: "e1", Address: "10.1.0.5", Other: "theirs"}, []string{"container shop on network web", "10.1.0.5", "logical port theirs", "ls1", "ovn-nbctl lsp-set-addresses theirs"}},
		{ovn.Clash{Endpoint: "e1", Address: "10.1.0.5", Other: "ocn1", Whose: "container db on host h2"}, []string{"container shop", "container db on host h2", "docker network disconnect"}},
		{ovn.Clash{Endpoint: "e1", Astray: true}, []string{"container shop", "is not on logical switch ls1", "docker restart shop"}},
		{ovn.Clash{Endpoint: "e9", Astray: true}, []string{"endpoint e9", "docker restart"}},
	} {
		f := clash(n, c.clash)
		all := fmt.Sprint(f.Subject, f.Cause, f.Evidence, f.Mend)
		for _, want := range c.want {
			if !strings.Contains(all, want) {
				t.Errorf("%q does not say %q", all, want)
			}
		}
	}
}

// What the checks of OVN are called, they are called in the list of all.
func TestChecksOfOVN(t *testing.T) {
	var names []string
	for _, c := range (&doctor{}).checks(nil) {
		names = append(names, c.Name)
	}
	for _, name := range checksOfOVN {
		if !slices.Contains(names, name) {
			t.Errorf("there is no check %s", name)
		}
	}
}
