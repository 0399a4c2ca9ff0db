//go:build linux

package main

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"sync"
	"time"
)

// Report is what OUTFILE holds.
type Report struct {
	Written    time.Time `json:"written"`
	Sent       int       `json:"sent"`
	Received   int       `json:"received"`
	Lost       int       `json:"lost"` // unanswered for longer than patience
	LastAnswer time.Time `json:"last_answer"`
	Gaps       []Gap     `json:"gaps"` // without any answer, the last maxGaps
}

// Gap is a time without an answer.
type Gap struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

const (
	patience = time.Second
	minGap   = 100 * time.Millisecond
	maxGaps  = 1000
)

// tally counts packets.
type tally struct {
	mu      sync.Mutex // guards the following
	r       Report
	pending map[uint64]time.Time // sent and not answered
}

func newTally() *tally { return &tally{pending: map[uint64]time.Time{}} }

// next makes the next packet.
func (t *tally) next(now time.Time) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Sent++
	t.pending[uint64(t.r.Sent)] = now
	return binary.BigEndian.AppendUint64(nil, uint64(t.r.Sent))
}

// answered takes a packet that came back. A second copy of it does not count.
func (t *tally) answered(b []byte, now time.Time) {
	if len(b) != 8 {
		return
	}
	number := binary.BigEndian.Uint64(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, waited := t.pending[number]; !waited {
		return
	}
	delete(t.pending, number)
	t.r.Received++
	if last := t.r.LastAnswer; !last.IsZero() && now.Sub(last) > minGap {
		t.r.Gaps = append(t.r.Gaps, Gap{last, now})
		t.r.Gaps = t.r.Gaps[max(0, len(t.r.Gaps)-maxGaps):]
	}
	t.r.LastAnswer = now
}

// report is the count as of now. A packet that is late is lost until it comes.
func (t *tally) report(now time.Time) Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.r
	r.Written, r.Lost = now, 0
	r.Gaps = append([]Gap{}, r.Gaps...)
	for _, sent := range t.pending {
		if now.Sub(sent) > patience {
			r.Lost++
		}
	}
	return r
}

// write replaces a file by the report, so that a reader sees a whole one.
func (t *tally) write(path string) error {
	text, err := json.Marshal(t.report(time.Now()))
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
