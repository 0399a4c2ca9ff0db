package link

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Delete removes the pair of which host is the host end, and its shield. The
// other end goes with it, wherever it is. An absent link is success. A link that
// is not a veth with this alias is left alone; the error wraps ErrForeign.
func (k *Kernel) Delete(host, alias string) error {
	return k.DeleteAll(map[string]string{host: alias})[host]
}

// DeleteAll is Delete for many pairs, given as alias by host. It returns the
// errors by host, nil when there are none. Concurrent calls are
// combined as well.
func (k *Kernel) DeleteAll(aliases map[string]string) map[string]error {
	errs := map[string]error{}
	doomed := make([]Info, 0, len(aliases))
	shield := make(map[string]bool, len(aliases))
	find := k.finder(len(aliases))
	for host, alias := range aliases {
		in, ok, err := find.name(host)
		if err == nil && ok {
			err = in.owned(alias)
		}
		if err != nil {
			errs[host] = fmt.Errorf("delete veth %s: %w", host, err)
			continue
		}
		if ok {
			doomed = append(doomed, in)
		}
		shield[host] = false
	}
	for host, err := range k.remove(doomed) {
		errs[host] = fmt.Errorf("delete veth %s: %w", host, err)
		delete(shield, host)
	}
	for host, err := range k.shields.set(shield) {
		errs[host] = err
	}
	if len(errs) == 0 {
		return nil
	}
	return errs
}

// removals combines the removals that callers ask for at the same time. A
// removal takes some ten milliseconds, of waiting, whether for one link or for
// hundreds: those that arrive while one is under way go together in the next.
type removals struct {
	turn sync.Mutex // held while removing

	mu      sync.Mutex // guards waiting
	waiting []*removal
}

type removal struct {
	links []Info
	done  bool // guarded by removals.turn, like errs
	errs  map[string]error
}

// remove removes links and returns the errors by name.
func (k *Kernel) remove(links []Info) map[string]error {
	if len(links) == 0 {
		return nil
	}
	r := &removal{links: links}
	k.removals.mu.Lock()
	k.removals.waiting = append(k.removals.waiting, r)
	k.removals.mu.Unlock()

	k.removals.turn.Lock()
	defer k.removals.turn.Unlock()
	if r.done { // whoever had the turn before took ours along
		return r.errs
	}
	k.removals.mu.Lock()
	all := k.removals.waiting
	k.removals.waiting = nil
	k.removals.mu.Unlock()

	var batch []Info
	for _, r := range all {
		batch = append(batch, r.links...)
	}
	k.removeTogether(batch)
	for _, r := range all {
		r.errs = k.removeEach(r.links)
		r.done = true
	}
	return r.errs
}

// removeTogether removes links in one request. The kernel offers that only for
// all links of a group, so they are put into one first. It may leave some.
func (k *Kernel) removeTogether(links []Info) {
	if len(links) < 2 {
		return
	}
	// A group that, by all odds, no link is in yet.
	group := nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(1<<30|rand.Uint32()>>2))
	for _, in := range links {
		k.gone.request(unix.RTM_SETLINK, unix.NLM_F_ACK, header(in), group).Execute(unix.NETLINK_ROUTE, 0)
	}
	k.gone.request(unix.RTM_DELLINK, unix.NLM_F_ACK, nl.NewIfInfomsg(unix.AF_UNSPEC), group).Execute(unix.NETLINK_ROUTE, 0)
}

// removeEach removes links one by one; those gone already cost little.
func (k *Kernel) removeEach(links []Info) map[string]error {
	errs := map[string]error{}
	for _, in := range links {
		_, err := k.gone.request(unix.RTM_DELLINK, unix.NLM_F_ACK, header(in)).Execute(unix.NETLINK_ROUTE, 0)
		if err != nil && !errors.Is(err, unix.ENODEV) {
			errs[in.Name] = err
		}
	}
	return errs
}

// header addresses a link by index: its name may be another link's by now.
func header(in Info) *nl.IfInfomsg {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(in.Index)
	return msg
}
