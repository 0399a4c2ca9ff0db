package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// portServed tells whether a socket of the host is bound to the port and waits:
// one of docker-proxy, for a port that is published. Protocols are IANA numbers.
// What cannot be read counts as not served.
func portServed(proto uint8, port uint16) bool {
	files := map[uint8][]string{
		6:  {"/proc/net/tcp", "/proc/net/tcp6"},
		17: {"/proc/net/udp", "/proc/net/udp6"},
	}
	for _, name := range files[proto] {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		found := bound(bufio.NewScanner(f), port)
		f.Close()
		if found {
			return true
		}
	}
	return false
}

// bound looks for a listening TCP socket or an unconnected UDP socket in a table
// of proc_net_tcp: "sl local_address rem_address st …", addresses as HEX:PORT.
func bound(table *bufio.Scanner, port uint16) bool {
	suffix := fmt.Sprintf(":%04X", port)
	for table.Scan() {
		f := strings.Fields(table.Text())
		if len(f) > 3 && strings.HasSuffix(f[1], suffix) && strings.HasSuffix(f[2], ":0000") && (f[3] == "0A" || f[3] == "07") {
			return true
		}
	}
	return false
}
