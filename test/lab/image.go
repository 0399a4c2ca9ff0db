//go:build linux

package lab

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Files of the test image besides the programs.
const (
	// pause is what a container of the image does unless told otherwise. As
	// process 1 it gets no default action for SIGTERM: without the trap every
	// `docker stop` would take ten seconds.
	pause = `#!/bin/sh
trap 'exit 0' TERM INT
while :; do sleep 3600 & wait $!; done
`
	udhcpcScript = `#!/bin/sh
case $1 in
deconfig) ip addr flush dev $interface; ip link set $interface up ;;
bound|renew)
	ip addr replace $ip/${mask:-24} dev $interface
	for r in $router; do ip route replace default via $r dev $interface; done
	: > /etc/resolv.conf
	for n in $dns; do echo nameserver $n >> /etc/resolv.conf; done
	echo "lease $ip/$mask router=$router dns=$dns lease=$lease mtu=$mtu" ;;
esac
`
	// tcpdump gives up root for the user of that name.
	passwd = "root:x:0:0:root:/root:/bin/sh\ntcpdump:x:101:101::/:/bin/false\n"
	group  = "root:x:0:\ntcpdump:x:101:\n"
)

// imageTools are the programs of the machine that the image contains besides
// busybox, with the libraries they need.
var imageTools = []string{"iperf3", "ethtool", "tcpdump"}

// Image builds the file system of the test image as a tar file in dir, unless
// one made of the same programs is there already.
func Image(ctx context.Context, dir string) (string, error) {
	if err := needTools(onMachine, append([]string{"busybox", "ldd"}, imageTools...)...); err != nil {
		return "", fmt.Errorf("build test image: %w", err)
	}
	files, err := imageFiles(ctx)
	if err != nil {
		return "", fmt.Errorf("build test image: %w", err)
	}
	path := filepath.Join(dir, "image-"+fingerprint(files)+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, "image-*.part")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(writeTar(f, files), f.Close()); err != nil {
		return "", fmt.Errorf("build test image: %w", err)
	}
	return path, os.Rename(f.Name(), path)
}

// imageFile is an entry of the image: a copy of a file of the machine, a text,
// a link, or a directory if it is none of these.
type imageFile struct {
	name             string // without leading slash
	from, text, link string
	mode             int64
}

func imageFiles(ctx context.Context) ([]imageFile, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	var files []imageFile
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "root", "run", "usr", "usr/bin", "usr/share", "usr/share/udhcpc", "var"} {
		files = append(files, imageFile{name: d + "/", mode: 0o755})
	}
	files = append(files,
		imageFile{name: "bin/busybox", from: busybox, mode: 0o755},
		imageFile{name: "bin/pause", text: pause, mode: 0o755},
		imageFile{name: "usr/share/udhcpc/default.script", text: udhcpcScript, mode: 0o755},
		// Debian's busybox looks for the script at the one place, others at the other.
		imageFile{name: "etc/udhcpc", link: "../usr/share/udhcpc"},
		imageFile{name: "etc/passwd", text: passwd, mode: 0o644},
		imageFile{name: "etc/group", text: group, mode: 0o644},
	)
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", busybox, err)
	}
	for a := range strings.FieldsSeq(string(applets)) {
		if a != "busybox" { // it lists itself
			files = append(files, imageFile{name: "bin/" + a, link: "busybox"})
		}
	}
	return appendTools(ctx, files)
}

var libraryPath = regexp.MustCompile(`/[^ ]*`)

func appendTools(ctx context.Context, files []imageFile) ([]imageFile, error) {
	var libs []string
	for _, tool := range imageTools {
		p, err := exec.LookPath(tool)
		if err != nil {
			return nil, err
		}
		files = append(files, imageFile{name: "usr/bin/" + tool, from: p, mode: 0o755})
		out, err := exec.CommandContext(ctx, "ldd", p).Output()
		if err != nil {
			return nil, fmt.Errorf("ldd %s: %w", p, err)
		}
		libs = append(libs, libraryPath.FindAllString(string(out), -1)...)
	}
	slices.Sort(libs)
	for _, lib := range slices.Compact(libs) {
		files = append(files, imageFile{name: lib[1:], from: lib, mode: 0o755})
	}
	return files, nil
}

// fingerprint names what the image is made of without reading the programs.
func fingerprint(files []imageFile) string {
	sum := sha256.New()
	for _, f := range files {
		fmt.Fprintf(sum, "%+v\n", f)
		if fi, err := os.Stat(f.from); err == nil {
			fmt.Fprintln(sum, fi.Size(), fi.ModTime().UnixNano())
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil)[:6])
}

func writeTar(w io.Writer, files []imageFile) error {
	tw := tar.NewWriter(w)
	for _, f := range files {
		if err := writeEntry(tw, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, f imageFile) error {
	hdr := &tar.Header{Name: f.name, Mode: f.mode, Linkname: f.link, Typeflag: tar.TypeDir}
	switch {
	case f.link != "":
		hdr.Typeflag, hdr.Mode = tar.TypeSymlink, 0o777
		return tw.WriteHeader(hdr)
	case f.text != "":
		hdr.Typeflag, hdr.Size = tar.TypeReg, int64(len(f.text))
		if err := tw.WriteHeader(hdr); err != nil {
			return err
		}
		_, err := io.WriteString(tw, f.text)
		return err
	case f.from == "":
		return tw.WriteHeader(hdr)
	}
	src, err := os.Open(f.from)
	if err != nil {
		return err
	}
	defer src.Close()
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	hdr.Typeflag, hdr.Size = tar.TypeReg, fi.Size()
	if err := tw.WriteHeader(hdr); err != nil {
		return err
	}
	_, err = io.Copy(tw, src)
	return err
}
