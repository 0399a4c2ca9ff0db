package dockerwatch

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ovs-container-network/ovs-container-network/internal/network"
)

func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{"container":"c1"}},"timeNano":1}` + "\n"))
	f.Add([]byte(`{"Type":"container","Action":"rename","Actor":{"ID":"c1"}}` + "\n\n{}\n"))
	f.Add([]byte(`{"Type":"network","Action":7}`))
	f.Fuzz(func(t *testing.T, stream []byte) {
		in := newInbox()
		if readEvents(bytes.NewReader(stream), in) == nil {
			t.Error("a stream ended without an error")
		}
		ids, all, created := in.take()
		if _, ok := ids[""]; ok || len(ids) > maxInbox {
			t.Errorf("%d networks to look at, one without id: %v", len(ids), ok)
		}
		if woken := len(in.wake) == 1; woken != (all || len(ids) > 0 || len(created) > 0) {
			t.Errorf("woken %v for %d networks, all %v", woken, len(ids), all)
		}
	})
}

func TestInboxIsBounded(t *testing.T) {
	in := newInbox()
	for i := range 2*maxInbox + 1 {
		e := event{Type: "network", Action: "create"}
		e.Actor.ID = fmt.Sprint(i)
		in.put(e)
	}
	ids, all, _ := in.take()
	if len(ids) > maxInbox || !all {
		t.Errorf("%d networks, all %v", len(ids), all)
	}
	if _, ok := ids[network.ID(fmt.Sprint(2*maxInbox))]; !ok {
		t.Error("the newest network is lost")
	}
}
