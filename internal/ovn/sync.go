package ovn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ovs-container-network/ovs-container-network/internal/ovsdb"
)

// everyRow selects all rows: the library leaves out a condition that is empty, and
// the server wants one.
var everyRow = []ovsdb.Condition{{Column: "_uuid", Function: "!=", Value: ovsdb.UUID{GoUUID: "00000000-0000-0000-0000-000000000000"}}}

// syncEvery is the pause between two looks at what ovn-northd has done.
const syncEvery = 50 * time.Millisecond

// ErrNorthd tells that ovn-northd has not done in time what it was asked to.
var ErrNorthd = errors.New("ovn-northd does not act on changes of the northbound database")

// Sync waits until ovn-northd has carried the northbound database as it is now into
// the southbound one. It asks all chassis to show that they live, too.
func (f *Fabric) Sync(ctx context.Context, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	rows, err := f.nb.Commit(limited, nil, &ovsdb.Seal{Operations: []ovsdb.Operation{
		ovsdb.Mutate("NB_Global", everyRow, ovsdb.Mutation{Column: "nb_cfg", Mutator: "+=", Value: 1}),
		{Op: "select", Table: "NB_Global", Where: everyRow, Columns: []string{"nb_cfg"}},
	}})
	if err != nil {
		return err
	}
	if len(rows) != 2 || len(rows[1].Rows) == 0 {
		return fmt.Errorf("%w: its database has no row in NB_Global (ovn-nbctl init)", ErrNorthd)
	}
	asked := intOf(rows[1].Rows[0]["nb_cfg"])
	for {
		found, err := f.nb.Select(limited, "NB_Global", nil, "sb_cfg")
		if err == nil && len(found) > 0 && intOf(found[0]["sb_cfg"]) >= asked {
			return nil
		}
		again := time.NewTimer(syncEvery)
		select {
		case <-again.C:
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return ErrNorthd
		}
	}
}
