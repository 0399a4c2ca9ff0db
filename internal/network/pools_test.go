package network_test

import (
	"net/netip"
	"slices"
	"strings"
	"sync"

	. "github.com/ovs-container-network/ovs-container-network/internal/network"
)

// ourSpace is the address space whose pools are those of our IPAM driver.
const ourSpace = "ours"

// fakePools is our IPAM driver: every subnet of ourSpace has a pool there.
type fakePools struct {
	mu        sync.Mutex // guards the following
	claimed   map[ID]int
	static    map[ID]bool
	forgotten []ID              // networks whose pools nobody will release
	entered   []ID              // networks of which an endpoint was being created
	names     map[string]string // containers by the address booked for them
	freed     []string          // addresses of endpoints that Docker gave up
	audited   map[ID]string     // addresses in use as the last Audit was told
	fail      error
}

func (p *fakePools) Claim(id ID, s Subnet, static bool) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Space != ourSpace {
		return false, nil
	}
	if p.fail != nil {
		return false, p.fail
	}
	p.claimed[id]++
	p.static[id] = static
	return true, nil
}

func (p *fakePools) Unclaim(id ID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return p.fail
	}
	delete(p.claimed, id)
	delete(p.static, id)
	return nil
}

// failWith makes every call fail, until it is told nil.
func (p *fakePools) failWith(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

func (p *fakePools) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.claimed)
}

func (p *fakePools) Entered(id ID, addrs []netip.Addr) (container string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entered = append(p.entered, id)
	for _, a := range addrs {
		container = p.names[a.String()]
	}
	return container
}

func (p *fakePools) Abandon(_ ID, addrs []netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range addrs {
		p.freed = append(p.freed, a.String())
	}
	return p.fail
}

func (p *fakePools) Audit(used func(ID) (map[netip.Addr]bool, bool)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.audited = map[ID]string{}
	for id := range p.claimed {
		if addrs, known := used(id); known {
			p.audited[id] = strings.Join(slices.Sorted(func(yield func(string) bool) {
				for a := range addrs {
					if !yield(a.String()) {
						return
					}
				}
			}), " ")
		}
	}
	return p.fail
}

// abandoned returns the addresses freed since it was last called, sorted.
func (p *fakePools) abandoned() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.freed)
	text := strings.Join(p.freed, " ")
	p.freed = nil
	return text
}

func (p *fakePools) Forget(id ID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgotten = append(p.forgotten, id)
	return p.fail
}
