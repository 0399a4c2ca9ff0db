package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// member is one server of a cluster.
type member struct {
	sock, ctl string
	args      []string
	cmd       *exec.Cmd
}

// startCluster makes a cluster of three with Open vSwitch's schema. Its servers
// talk over TCP on loopback.
func startCluster(t *testing.T) []*member {
	t.Helper()
	s := &server{t: t}
	for _, tool := range []string{"ovsdb-server", "ovsdb-tool", "ovs-appctl"} {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("OCN_UNIT") == "1" {
			t.Skipf("needs %s", tool)
		}
		t.Fatalf("needs %s (OCN_UNIT=1 skips)", tool)
	}
	dir, err := os.MkdirTemp("", "ocn-raft-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.dir = dir
	var members []*member
	var first string
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		addr := "tcp:" + l.Addr().String()
		l.Close()
		file := filepath.Join(dir, fmt.Sprint("db", i))
		if i == 0 {
			first = addr
			s.run("ovsdb-tool", "--election-timer=1000", "create-cluster", file, schema, addr)
		} else {
			s.run("ovsdb-tool", "join-cluster", file, "Open_vSwitch", addr, first)
		}
		m := &member{sock: filepath.Join(dir, fmt.Sprint("sock", i)), ctl: filepath.Join(dir, fmt.Sprint("ctl", i))}
		m.args = []string{file, "--no-chdir", "-vconsole:off", "--remote=punix:" + m.sock, "--unixctl=" + m.ctl}
		m.start(t)
		t.Cleanup(m.kill)
		eventually(t, "the member belongs to the cluster", func() bool {
			return exec.Command("ovs-appctl", "-t", m.ctl, "cluster/status", "Open_vSwitch").Run() == nil && m.says("Status: cluster member")
		})
		members = append(members, m)
	}
	return members
}

func (m *member) start(t *testing.T) {
	t.Helper()
	m.cmd = exec.Command("ovsdb-server", m.args...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, m.cmd.Start())
}

func (m *member) kill() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
		m.cmd = nil
	}
}

func (m *member) says(words string) bool {
	out, err := exec.Command("ovs-appctl", "-t", m.ctl, "cluster/status", "Open_vSwitch").Output()
	return err == nil && strings.Contains(string(out), words)
}

// leads returns the member that leads the cluster.
func leads(t *testing.T, members []*member) (leader *member) {
	t.Helper()
	eventually(t, "the cluster has a leader", func() bool {
		for _, m := range members {
			if m.cmd != nil && m.says("Role: leader") {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

// Of a cluster the leader is used, and the next one when it dies; without a
// majority the error says so, in seconds.
func TestLeader(t *testing.T) {
	members := startCluster(t)
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, "unix:"+m.sock)
	}
	root := &rootRow{}
	db, err := New(Config{
		Remote:   func() (Remote, error) { return Remote{Endpoints: endpoints}, nil },
		Database: "Open_vSwitch", Log: slog.New(slog.DiscardHandler),
		Tables: []Table{{Row: root, Fields: []any{&root.Bridges, &root.NextCfg, &root.ExternalIDs}}},
	})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- db.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })

	used := func() string {
		db.mu.Lock()
		defer db.mu.Unlock()
		if db.conn == nil {
			return ""
		}
		return db.conn.endpoint
	}
	leader := leads(t, members)
	eventually(t, "the leader is used", func() bool { return used() == "unix:"+leader.sock })
	insert := []Operation{{Op: "insert", Table: "Open_vSwitch", Row: Values{"external_ids": Map{GoMap: map[any]any{"a": "b"}}}}}
	_, err = db.Commit(t.Context(), insert, nil)
	check(t, err)

	leader.kill()
	next := leads(t, members)
	eventually(t, "the next leader is used", func() bool { return used() == "unix:"+next.sock })
	eventually(t, "and answers", func() bool {
		rows, err := db.Select(t.Context(), "Open_vSwitch", nil, "next_cfg")
		return err == nil && len(rows) == 1
	})

	for _, m := range members {
		if m != next {
			m.kill()
		}
	}
	start := time.Now()
	_, err = db.Commit(t.Context(), []Operation{{Op: "mutate", Table: "Open_vSwitch", Where: []Condition{{Column: "next_cfg", Function: "==", Value: 0}},
		Mutations: []Mutation{{Column: "next_cfg", Mutator: "+=", Value: 1}}}}, nil)
	if err == nil || time.Since(start) > 2*transactTimeout {
		t.Errorf("without a majority: %v after %v", err, time.Since(start))
	}
	eventually(t, "it is told why there is no connection", func() bool {
		_, err := db.View()
		return err != nil && (strings.Contains(err.Error(), errNotLeading.Error()) || strings.Contains(err.Error(), "has lost the others"))
	})
	if _, err := db.View(); errors.Is(err, errNotLeading) {
		t.Error("the error of one member hides those of the others")
	}
}

// What is connected on demand is left alone until then.
func TestOnDemand(t *testing.T) {
	asked := make(chan struct{}, 100)
	db, err := New(Config{OnDemand: true, Database: "Open_vSwitch", Log: slog.New(slog.DiscardHandler), Tables: []Table{{Row: &rootRow{}}}, Remote: func() (Remote, error) {
		asked <- struct{}{}
		return Remote{}, errors.New("nothing there")
	}})
	check(t, err)
	<-asked // by New, for the messages
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- db.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case <-asked:
		t.Error("it was connected though nobody wanted it")
	case <-time.After(3 * retryAfter):
	}
	db.Start()
	db.Start()
	select {
	case <-asked:
	case <-time.After(bounded):
		t.Error("it is not connected though it is wanted")
	}
}
