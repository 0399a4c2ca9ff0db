package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// shields keeps frames that come in from shielded links away from the host's
// network stack: one nf_tables base chain at the ingress of each, without
// rules, with the policy to drop. Packet sockets, through which the userspace
// datapath reads, get their copy before that hook.
//
// A chain is called like its link. Up to Linux 6.15 it goes with its link;
// from 6.16 on it stays and takes hold again of a link that gets the same name.
// So a chain that is listed is in force if its link exists, on any kernel.
type shields struct {
	mu   sync.Mutex     // one exchange at a time, they share a socket
	conn *nftables.Conn // nil when not open
	sock *mdlayher.Conn // the socket of conn

	closed bool
}

// shieldTable is ours alone. It exists while it has chains.
var shieldTable = &nftables.Table{Name: "ovs-container-network", Family: nftables.TableFamilyNetdev}

const (
	// shieldBatch bounds a transaction: each change is acknowledged, and the
	// acknowledgements of a transaction wait in the socket all at once.
	shieldBatch  = 1000
	shieldBuffer = 8 << 20
	// shieldTimeout bounds an exchange: a kernel that refuses a transaction as a
	// whole sends fewer answers than are waited for.
	shieldTimeout = 20 * time.Second
)

// Shielded returns the names of all links with a shield; nil where the kernel has
// no nf_tables.
func (k *Kernel) Shielded() (map[string]bool, error) {
	k.shields.mu.Lock()
	defer k.shields.mu.Unlock()
	have, err := k.shields.listLocked()
	if unsupported(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list shields: %w", err)
	}
	return have, nil
}

// Shield puts shields on links that have none.
func (k *Kernel) Shield(hosts []string) error {
	want := make(map[string]bool, len(hosts))
	for _, h := range hosts {
		want[h] = true
	}
	return errors.Join(slices.Collect(maps.Values(k.shields.set(want)))...)
}

// PruneShields removes the shields of all links for which keep is false.
func (k *Kernel) PruneShields(keep func(host string) bool) error {
	have, err := k.Shielded()
	if err != nil {
		return err
	}
	want := map[string]bool{}
	for host := range have {
		if !keep(host) {
			want[host] = false
		}
	}
	return errors.Join(slices.Collect(maps.Values(k.shields.set(want)))...)
}

// set shields the links for which want is true and removes the shield of those
// for which it is false. It touches nothing that is already so, and returns the
// errors by name.
func (s *shields) set(want map[string]bool) map[string]error {
	if len(want) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.setLocked(want)
	if err == nil {
		return nil
	}
	// A transaction fails as a whole. If the kernel refused it, find out whose
	// fault it was.
	var refused unix.Errno
	each := len(want) > 1 && errors.As(err, &refused)
	errs := map[string]error{}
	for host, yes := range want {
		if each {
			err = s.setLocked(map[string]bool{host: yes})
		}
		if err != nil {
			errs[host] = fmt.Errorf("keep the host stack off %s: %w", host, err)
		}
	}
	return errs
}

func (s *shields) setLocked(want map[string]bool) error {
	for attempt := 0; ; attempt++ {
		err := s.tryLocked(want)
		// ENOENT: a link, and its chain, went after we listed.
		if attempt == 2 || !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
}

func (s *shields) tryLocked(want map[string]bool) error {
	have, chains, table, err := s.haveLocked(want)
	if unsupported(err) && !slices.Contains(slices.Collect(maps.Values(want)), true) {
		return nil // then there are none to remove
	}
	if err != nil {
		return err
	}
	var add, drop []string
	for host, yes := range want {
		switch {
		case yes && !have[host]:
			add = append(add, host)
		case !yes && have[host]:
			drop = append(drop, host)
		}
	}
	if table && len(add) == 0 && len(drop) == chains {
		// The last ones go with the table. It may also be empty already, if the
		// last link took its chain along.
		s.conn.DelTable(shieldTable)
		return s.flushLocked()
	}
	for batch := range slices.Chunk(add, shieldBatch) {
		s.conn.AddTable(shieldTable)
		for _, host := range batch {
			policy := nftables.ChainPolicyDrop
			s.conn.AddChain(&nftables.Chain{
				Table: shieldTable, Name: host, Device: host,
				Type:    nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookIngress,
				// A drop holds whatever other chains at this hook say, so that
				// the place among them does not matter.
				Priority: nftables.ChainPriorityFilter,
				Policy:   &policy,
			})
		}
		if err := s.flushLocked(); err != nil {
			return err
		}
	}
	for batch := range slices.Chunk(drop, shieldBatch) {
		for _, host := range batch {
			s.conn.DelChain(&nftables.Chain{Table: shieldTable, Name: host})
		}
		if err := s.flushLocked(); err != nil {
			return err
		}
	}
	return nil
}

// haveLocked returns which of the links in want have a shield, how many chains
// there are in all, and whether the table exists.
func (s *shields) haveLocked(want map[string]bool) (have map[string]bool, chains int, table bool, err error) {
	if err := s.readyLocked(); err != nil {
		return nil, 0, false, err
	}
	t, err := s.askLocked(unix.NFT_MSG_GETTABLE, nftName(unix.NFTA_TABLE_NAME, shieldTable.Name))
	if t == nil || err != nil {
		return nil, 0, false, err
	}
	t.ByteOrder = binary.BigEndian
	for t.Next() {
		if t.Type() == unix.NFTA_TABLE_USE {
			chains = int(t.Uint32())
		}
	}
	if len(want) >= listFrom {
		have, err = s.listLocked()
		return have, chains, true, err
	}
	have = map[string]bool{}
	for host := range want {
		c, err := s.askLocked(unix.NFT_MSG_GETCHAIN,
			nftName(unix.NFTA_CHAIN_TABLE, shieldTable.Name), nftName(unix.NFTA_CHAIN_NAME, host))
		if err != nil {
			return nil, 0, false, err
		}
		have[host] = c != nil
	}
	return have, chains, true, nil
}

// askLocked asks for one object and returns nil if it does not exist. The
// library's own calls for this hide which error the kernel gave, and read a
// table's use count in the wrong byte order.
func (s *shields) askLocked(kind uint16, attrs ...mdlayher.Attribute) (*mdlayher.AttributeDecoder, error) {
	data, err := mdlayher.MarshalAttributes(attrs)
	if err != nil {
		return nil, err
	}
	const header = 4 // struct nfgenmsg: family, version, resource id
	msgs, err := s.sock.Execute(mdlayher.Message{
		Header: mdlayher.Header{Type: mdlayher.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: mdlayher.Request},
		Data:   append([]byte{byte(shieldTable.Family), unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err == nil && (len(msgs) != 1 || len(msgs[0].Data) < header) {
		err = fmt.Errorf("nf_tables answered with %d objects", len(msgs))
	}
	if err != nil {
		return nil, s.brokenLocked(err)
	}
	return mdlayher.NewAttributeDecoder(msgs[0].Data[header:])
}

func nftName(kind uint16, name string) mdlayher.Attribute {
	return mdlayher.Attribute{Type: kind, Data: []byte(name + "\x00")}
}

// listLocked returns the names of all shielded links.
func (s *shields) listLocked() (map[string]bool, error) {
	if err := s.readyLocked(); err != nil {
		return nil, err
	}
	chains, err := s.conn.ListChainsOfTableFamily(shieldTable.Family)
	if err != nil {
		return nil, s.brokenLocked(err)
	}
	have := map[string]bool{}
	for _, c := range chains {
		if c.Table.Name == shieldTable.Name {
			have[c.Name] = true
		}
	}
	return have, nil
}

func (s *shields) flushLocked() error {
	if err := s.conn.Flush(); err != nil {
		return s.brokenLocked(err)
	}
	return nil
}

// readyLocked opens the socket if need be and starts the clock.
func (s *shields) readyLocked() error {
	if s.closed {
		return net.ErrClosed
	}
	if s.conn == nil {
		conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *mdlayher.Conn) error {
			s.sock = c
			return errors.Join(c.SetReadBuffer(shieldBuffer), c.SetWriteBuffer(shieldBuffer))
		}))
		if err != nil {
			return fmt.Errorf("open nf_tables socket: %w", err)
		}
		s.conn = conn
	}
	s.sock.SetDeadline(time.Now().Add(shieldTimeout)) // fails only where the next call fails too
	return nil
}

// brokenLocked drops the socket: after an error, answers to what failed may
// still wait in it and be taken for answers to the next request.
func (s *shields) brokenLocked(err error) error {
	s.dropLocked()
	return err
}

func (s *shields) dropLocked() {
	if s.conn != nil {
		s.conn.CloseLasting()
		s.conn = nil
	}
}

// open opens the socket while the caller of Open is on the right thread. If
// that fails, whoever needs a shield will see why.
func (s *shields) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readyLocked()
}

func (s *shields) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked()
	s.closed = true
}

// unsupported tells whether err means that the kernel has no nf_tables.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT)
}
