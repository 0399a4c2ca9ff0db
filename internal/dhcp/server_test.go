package dhcp

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// server is a DHCP server of Debian's.
type server interface {
	// serve starts it with the addresses 10.7.0.first to last for ten minutes each.
	serve(w *wire, first, last string) (stop func())
	// has tells whether its file holds a lease of an address.
	has(w *wire, addr string) bool
	// knows tells whether its file holds a client identifier, such as 00:78.
	knows(w *wire, id string) bool
}

var servers = map[string]server{"dnsmasq": dnsmasq{}, "kea": kea{}}

// start runs a server until the test or stop ends it.
func (w *wire) start(cmd *exec.Cmd) (stop func()) {
	w.t.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // it was killed
		if w.t.Failed() {
			w.t.Logf("%s: %s", cmd.Path, log.String())
		}
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *wire) file(name string) string {
	b, _ := os.ReadFile(filepath.Join(w.dir, name))
	return string(b)
}

// eventually waits until a condition holds.
func (w *wire) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not in time: %s", what)
		}
	}
}

type dnsmasq struct{}

func (dnsmasq) serve(w *wire, first, last string) (stop func()) {
	return w.dnsmasq(
		"--dhcp-range=10.7.0."+first+",10.7.0."+last+",255.255.255.0,10m", "--dhcp-option=3,10.7.0.1", "--dhcp-option=6,10.7.0.2,10.7.0.3",
		"--dhcp-option=15,lan.example", "--dhcp-option=26,1400", "--dhcp-option=121,10.8.0.0/16,10.7.0.9,0.0.0.0/0,10.7.0.254,10.9.1.0/24,0.0.0.0")
}

func (w *wire) dnsmasq(args ...string) (stop func()) {
	return w.start(exec.Command("dnsmasq", slices.Concat([]string{
		"--keep-in-foreground", "--user=root", "--conf-file=/dev/null", "--port=0", "--interface=srv", "--bind-interfaces",
		"--dhcp-leasefile=" + filepath.Join(w.dir, "leases"), "--pid-file=", "--log-facility=-", "--log-dhcp", "--no-ping", "--dhcp-authoritative",
	}, args)...))
}

func (dnsmasq) has(w *wire, addr string) bool {
	return strings.Contains(w.file("leases"), " "+addr+" ")
}
func (dnsmasq) knows(w *wire, id string) bool { return strings.Contains(w.file("leases"), " "+id+"\n") }

type kea struct{}

func (kea) serve(w *wire, first, last string) (stop func()) {
	type object = map[string]any
	option := func(code int, data string, text bool) object {
		return object{"code": code, "data": data, "csv-format": text}
	}
	config, err := json.Marshal(object{"Dhcp4": object{
		"interfaces-config": object{"interfaces": []string{"srv"}},
		"lease-database":    object{"type": "memfile", "name": filepath.Join(w.dir, "leases.csv"), "lfc-interval": 0},
		"authoritative":     true,
		"valid-lifetime":    600, "calculate-tee-times": true,
		"subnet4": []object{{
			"id": 1, "subnet": "10.7.0.0/24", "pools": []object{{"pool": "10.7.0." + first + " - 10.7.0." + last}},
			"option-data": []object{
				option(3, "10.7.0.1", true), option(6, "10.7.0.2,10.7.0.3", true), option(15, "lan.example", true), option(26, "1400", true),
				option(121, "100a080a070009"+"000a0700fe"+"180a090100000000", false),
			},
		}},
		"loggers": []object{{"name": "kea-dhcp4", "severity": "INFO", "output_options": []object{{"output": "stdout"}}}},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.dir, "kea.json")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command("kea-dhcp4", "-c", file)
	cmd.Env = append(os.Environ(), "KEA_LOCKFILE_DIR="+w.dir, "KEA_PIDFILE_DIR="+w.dir, "KEA_DHCP_DATA_DIR="+w.dir)
	return w.start(cmd)
}

// row is the last one of an address in the file, to which Kea only adds.
func (kea) row(w *wire, addr string) (fields []string) {
	for line := range strings.Lines(w.file("leases.csv")) {
		if strings.HasPrefix(line, addr+",") {
			fields = strings.Split(line, ",")
		}
	}
	return fields
}

func (k kea) has(w *wire, addr string) bool {
	row := k.row(w, addr)
	return len(row) > 4 && row[3] != "0" // the time for which it is valid
}

func (kea) knows(w *wire, id string) bool { return strings.Contains(w.file("leases.csv"), ","+id+",") }
