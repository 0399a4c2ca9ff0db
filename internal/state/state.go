package state

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovs-container-network/ovs-container-network/internal/ipam"
	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

// version of the records that this build writes and the newest it reads.
const version = 1

// Dir is an opened, locked state directory. Its methods may be called by many
// goroutines, for one record by one at a time.
type Dir struct {
	path string
	lock *os.File
}

// ErrLocked tells that another daemon uses the directory.
var ErrLocked = errors.New("another daemon is running on this host")

// Open makes the directory (mode 0700) if it is missing and takes its lock. It
// waits for the lock until ctx ends, since a daemon that is being replaced
// needs a moment to go.
func Open(ctx context.Context, path string) (*Dir, error) {
	for _, d := range []string{path, filepath.Join(path, "networks"), filepath.Join(path, "pools")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("cannot use state directory: %w", err)
		}
	}
	lock, err := Lock(ctx, filepath.Join(path, "lock"))
	if err != nil {
		return nil, fmt.Errorf("cannot use state directory %s: %w", path, err)
	}
	return &Dir{path: path, lock: lock}, nil
}

// Lock takes the lock that a file stands for, waiting for it until ctx ends; the
// error is ErrLocked then. Closing the file gives it up, as does the end of the
// process.
func Lock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func flock(ctx context.Context, f *os.File) error {
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return ErrLocked
		case <-retry.C:
		}
	}
}

// Close gives up the lock.
func (d *Dir) Close() error { return d.lock.Close() }

// HostID returns a random name of this host that never changes, making it at
// the first call.
func (d *Dir) HostID() (string, error) {
	path := filepath.Join(d.path, "host-id")
	text, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(text))) >= 16 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot read the host id: %w", err)
	}
	raw := make([]byte, 16)
	rand.Read(raw) //nolint:errcheck // never fails (crypto/rand)
	id := hex.EncodeToString(raw)
	return id, writeFile(path, []byte(id+"\n"), true)
}

// Probe tells whether a record could be written now: nil, or what the file system
// says. It leaves nothing behind.
func (d *Dir) Probe() error {
	path := filepath.Join(d.path, "probe")
	if err := writeFile(path, []byte(strings.Repeat("probe\n", 1000)), true); err != nil {
		return err
	}
	return os.Remove(path)
}

// Path is where the directory is.
func (d *Dir) Path() string { return d.path }

// Contents is all that a state directory holds.
type Contents struct {
	Networks []network.Network
	Pools    []ipam.Pool
	Damaged  []network.Damage // networks and endpoints
	BadPools []error          // pools that could not be read
}

// record is the layout of every file.
type record struct {
	Version  int               `json:"version"`
	Network  *network.Network  `json:"network,omitempty"`
	Endpoint *network.Endpoint `json:"endpoint,omitempty"`
	Pool     *ipam.Pool        `json:"pool,omitempty"`
}

// Load reads everything. Its error is of the directory itself; a record that
// cannot be read is among the contents.
func (d *Dir) Load() (Contents, error) {
	var c Contents
	nets, err := os.ReadDir(filepath.Join(d.path, "networks"))
	if err != nil {
		return c, fmt.Errorf("cannot read state directory: %w", err)
	}
	d.sweepTemporaries()
	for _, dir := range nets {
		d.loadNetwork(network.ID(dir.Name()), &c)
	}
	pools, err := os.ReadDir(filepath.Join(d.path, "pools"))
	if err != nil {
		return c, fmt.Errorf("cannot read state directory: %w", err)
	}
	for _, f := range pools {
		path := filepath.Join(d.path, "pools", f.Name())
		if !isRecord(path) {
			continue
		}
		r, err := read(path)
		if err == nil && (r.Pool == nil || d.poolPath(r.Pool.ID) != path) {
			err = errors.New("holds no pool of that name")
		}
		if err != nil {
			c.BadPools = append(c.BadPools, fmt.Errorf("%s: %w", path, err))
			continue
		}
		c.Pools = append(c.Pools, *r.Pool)
	}
	return c, nil
}

// sweepTemporaries removes what writes left that were cut off: the lock says
// that nobody is writing now.
func (d *Dir) sweepTemporaries() {
	for _, pattern := range []string{"*" + temporary, "pools/*" + temporary, "networks/*/*" + temporary, "networks/*/endpoints/*" + temporary} {
		found, _ := filepath.Glob(filepath.Join(d.path, pattern)) // the pattern is well formed
		for _, path := range found {
			os.Remove(path) // what stays is not read either
		}
	}
}

// temporary ends the name of a file that is being written.
const temporary = ".new"

func (d *Dir) loadNetwork(id network.ID, c *Contents) {
	path := d.networkPath(id)
	r, err := read(path)
	if errors.Is(err, fs.ErrNotExist) && d.empty(id) {
		// A crash between the two steps of DeleteNetwork.
		os.RemoveAll(filepath.Dir(path))
		return
	}
	if err == nil && (r.Network == nil || r.Network.ID != id) {
		err = errors.New("holds no network of that id")
	}
	if err != nil {
		c.Damaged = append(c.Damaged, network.Damage{Path: path, Network: id, Err: err})
		return
	}
	n := *r.Network
	n.Endpoints = make(map[network.EndpointID]*network.Endpoint)
	eps, err := os.ReadDir(d.endpointsPath(id))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Damaged = append(c.Damaged, network.Damage{Path: d.endpointsPath(id), Network: id, Err: err})
		return
	}
	for _, f := range eps {
		path := filepath.Join(d.endpointsPath(id), f.Name())
		if !isRecord(path) {
			continue
		}
		eid := network.EndpointID(strings.TrimSuffix(f.Name(), ".json"))
		r, cut, err := readLast(path)
		switch {
		case err != nil:
		case r.Endpoint == nil || r.Endpoint.ID != eid:
			err = errors.New("holds no endpoint of that id")
		case cut && (r.Endpoint.Phase == network.PhaseCreated || r.Endpoint.Phase == network.PhaseJoining):
			err = errors.New("is cut off where it should say what became of the endpoint")
		case cut:
			err = write(path, r, true) // later records need a line of their own
		}
		if err != nil {
			c.Damaged = append(c.Damaged, network.Damage{Path: path, Network: id, Endpoint: eid, Err: err})
			continue
		}
		n.Endpoints[eid] = r.Endpoint
	}
	c.Networks = append(c.Networks, n)
}

// empty tells whether a network without a record has no endpoints either.
func (d *Dir) empty(id network.ID) bool {
	eps, err := os.ReadDir(d.endpointsPath(id))
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(eps) == 0
}

func (d *Dir) networkPath(id network.ID) string {
	return filepath.Join(d.path, "networks", string(id), "network.json")
}

func (d *Dir) endpointsPath(id network.ID) string {
	return filepath.Join(d.path, "networks", string(id), "endpoints")
}

func (d *Dir) poolPath(id ipam.PoolID) string {
	return filepath.Join(d.path, "pools", strings.NewReplacer("/", "_", ":", "-").Replace(string(id))+".json")
}

// PutNetwork implements network.Store.
func (d *Dir) PutNetwork(n network.Network, sync bool) error {
	if err := os.MkdirAll(d.endpointsPath(n.ID), 0o700); err != nil {
		return err
	}
	path := d.networkPath(n.ID)
	if _, err := os.Stat(path); err == nil {
		// Some file systems lose both when a file that was not synced is renamed
		// over one that was, and the power goes.
		sync = true
	}
	if err := write(path, record{Network: &n}, sync); err != nil {
		return err
	}
	if sync {
		return syncDir(filepath.Join(d.path, "networks"))
	}
	return nil
}

// PutEndpoint implements network.Store. The network's record must exist.
func (d *Dir) PutEndpoint(e network.Endpoint, sync bool) error {
	path := d.endpointPath(e)
	r := record{Endpoint: &e}
	if !sync {
		if err := appendLine(path, r); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return write(path, r, sync)
}

func (d *Dir) endpointPath(e network.Endpoint) string {
	return filepath.Join(d.endpointsPath(e.Network), string(e.ID)+".json")
}

// DeleteNetwork implements network.Store. It takes the record away before the
// rest, so that a crash leaves an empty directory, not half a network, and is
// synced: Docker will not say a second time that the network is gone.
func (d *Dir) DeleteNetwork(id network.ID) error {
	if err := remove(d.networkPath(id)); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(d.path, "networks", string(id))); err != nil {
		return err
	}
	return syncDir(filepath.Join(d.path, "networks"))
}

// DeleteEndpoint implements network.Store.
func (d *Dir) DeleteEndpoint(e network.Endpoint) error {
	return remove(d.endpointPath(e))
}

// PutPool implements ipam.Store.
func (d *Dir) PutPool(p ipam.Pool) error {
	return write(d.poolPath(p.ID), record{Pool: &p}, true)
}

// DeletePool implements ipam.Store.
func (d *Dir) DeletePool(id ipam.PoolID) error {
	if err := remove(d.poolPath(id)); err != nil {
		return err
	}
	return syncDir(filepath.Join(d.path, "pools"))
}

func isRecord(path string) bool { return strings.HasSuffix(path, ".json") }

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// read reads a file of one record.
func read(path string) (record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	return parse(text)
}

// readLast reads a file of several records, of which the last counts. cut tells
// that something follows it that is no record: what a power cut leaves of an
// appended line.
func readLast(path string) (r record, cut bool, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return record{}, false, err
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	for i := len(lines) - 1; i >= 0; i-- {
		if len(lines[i]) == 0 {
			continue
		}
		if bytes.HasSuffix(lines[i], []byte("\n")) {
			if r, err = parse(lines[i]); err == nil || errors.Is(err, errNewer) {
				return r, cut, err
			}
		}
		cut = true
	}
	return record{}, true, cmp.Or(err, errors.New("not a record: it is cut off"))
}

// errNewer tells of a record that a newer build wrote.
var errNewer = errors.New("was written by a newer build")

func parse(line []byte) (record, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("not a record: %w", err)
	}
	if r.Version < 1 || r.Version > version {
		return r, fmt.Errorf("%w: has version %d, this build reads up to %d", errNewer, r.Version, version)
	}
	return r, nil
}

func write(path string, r record, sync bool) error {
	text, err := r.line()
	if err != nil {
		return err
	}
	return writeFile(path, text, sync)
}

func (r record) line() ([]byte, error) {
	r.Version = version
	text, err := json.Marshal(r)
	return append(text, '\n'), err
}

// appendLine adds a record to an existing file, where the last one counts. It
// survives the end of this process; a power cut may take it, but not what was
// synced before.
func appendLine(path string, r record) (err error) {
	text, err := r.line()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	before, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Write(text)
	}
	if err != nil {
		f.Truncate(before) //nolint:errcheck // half a line is reported at the next start
	}
	return errors.Join(err, f.Close())
}

// writeFile replaces the file at path by text, whole or not at all. With sync
// it survives a power cut; without, the end of this process.
func writeFile(path string, text []byte, sync bool) (err error) {
	tmp := path + temporary
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	_, err = f.Write(text)
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp, path); err != nil || !sync {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
