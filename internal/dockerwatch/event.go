package dockerwatch

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

const (
	// maxEvent bounds one event; a container's carries all of its labels. A
	// longer one breaks the stream, and the listing that follows makes up for it.
	maxEvent = 1 << 20
	// maxInbox bounds the networks that events name while a listing is slow.
	maxInbox = 4096
)

// eventFilter asks the engine for no more than the events that are used. What
// ends needs no event: an endpoint's container is of interest as long as the
// endpoint exists, and of the endpoint's end the driver is told directly.
const eventFilter = `{"type":["network","container"],"event":["connect","create","rename"]}`

// event is one line of the stream, without the attributes: that something
// happened is enough, what it was is looked up.
type event struct {
	Type   string
	Action string
	Actor  struct{ ID string }
}

// decodeEvent reads one line of the stream.
func decodeEvent(line []byte) (event, error) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		return event{}, fmt.Errorf("event %.80q: %w", line, err)
	}
	return e, nil
}

// readEvents puts the stream's events into the inbox until the stream ends. It
// never returns nil.
func readEvents(r io.Reader, in *inbox) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		e, err := decodeEvent(lines.Bytes())
		if err != nil {
			return err
		}
		in.put(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read Docker's events: %w", err)
	}
	return errors.New("event stream was ended by Docker")
}

// inbox passes from the reader to the watcher which networks to look at. It is
// a set and not a queue: the reader never waits, as Docker drops events for
// those who read slowly, and a thousand containers that start make one entry.
type inbox struct {
	wake chan struct{} // holds one token while something is in

	mu  sync.Mutex // guards all below
	ids map[network.ID]struct{}
	all bool // look at every network

	created []string // containers that were created
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// put notes what e asks for. Events that say nothing about names are dropped.
func (in *inbox) put(e event) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case e.Type == "network" && (e.Action == "connect" || e.Action == "create") && e.Actor.ID != "":
		if len(in.ids) >= maxInbox {
			in.ids, in.all = nil, true
		}
		if in.ids == nil {
			in.ids = map[network.ID]struct{}{}
		}
		in.ids[network.ID(e.Actor.ID)] = struct{}{}
	case e.Type == "container" && e.Action == "rename":
		in.all = true // the event does not tell the container's networks
	case e.Type == "container" && e.Action == "create" && e.Actor.ID != "":
		if len(in.created) < maxInbox {
			in.created = append(in.created, e.Actor.ID)
		}
	default:
		return
	}
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// take empties the inbox.
func (in *inbox) take() (ids map[network.ID]struct{}, all bool, created []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	ids, all, created = in.ids, in.all, in.created
	in.ids, in.all, in.created = nil, false, nil
	return ids, all, created
}
