#!/bin/bash
# make demo: two containers that talk through a bridge of Open vSwitch, on this
# machine. It installs and starts what is missing, may be run again, and leaves
# alone whatever it did not make. make demo-clean removes what it made.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/demo-lib.sh

# What the make that runs this script tells its own ones is nothing for others.
unset MAKEFLAGS MFLAGS MAKELEVEL

version=$(cat VERSION)
plugin=$name:$version
owner=$(stat -c %U .)

failed() {
	local status=$?
	[ $status != 0 ] || return 0
	echo >&2
	echo "demo: FAILED at: $doing" >&2
	[ -z "$logs" ] || last_log >&2
	echo "demo: what was made so far is removed by: sudo make demo-clean" >&2
}

# last_log shows the end of the logs that may tell the cause.
last_log() {
	if [ -f "$docker_log" ] && [ -n "$(remembered daemon dockerd)" ]; then
		echo "demo: the end of $docker_log:"
		tail -15 "$docker_log"
	elif has_systemd; then
		echo "demo: the end of journalctl -u docker -u openvswitch-switch -u ovs-vswitchd -u $name:"
		journalctl -q --no-pager -n 15 -u docker -u openvswitch-switch -u ovs-vswitchd -u "$name" || true
	fi
}

# as_owner runs a command as the one to whom the source tree belongs, so that
# there are no files of root in it afterwards.
as_owner() {
	if [ "$owner" = root ] || [ "$owner" = UNKNOWN ]; then
		"$@"
	else
		runuser -u "$owner" -- env HOME="$(getent passwd "$owner" | cut -d: -f6)" "$@"
	fi
}

## What has to be installed

updated=''
apt_update() {
	[ -z "$updated" ] || return 0
	say "apt-get update"
	apt-get update -qq 9>&-
	updated=yes
}

apt_install() { # PACKAGE...
	command -v apt-get >/dev/null ||
		die "missing: $*. Only Debian's and Ubuntu's packages can be installed by this; install it and run this again."
	apt_update
	say "apt-get install $*"
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" >"$memory/apt.log" 2>&1 9>&- || {
		tail -15 "$memory/apt.log" >&2
		die "apt-get could not install: $*"
	}
	local p
	for p in "$@"; do remember package "$p"; done
}

have_package() { # in the archive
	[ -n "$(apt-cache madison "$1" 2>/dev/null)" ]
}

install_docker() {
	if docker_answers || command -v dockerd >/dev/null; then
		command -v docker >/dev/null || die "there is a Docker engine but no docker command: install its package"
		return 0
	fi
	if command -v docker >/dev/null; then
		die "$(command -v docker) is there, but no Docker engine runs on this machine and no dockerd is installed." \
			"Install the engine that belongs to it (docker-ce, or Debian's docker.io instead of it) and run this again."
	fi
	apt_install docker.io
	# Newer releases have the command in a package of its own.
	if ! command -v docker >/dev/null && have_package docker-cli; then apt_install docker-cli; fi
}

install_all() {
	step "installing what is missing"
	install_docker
	command -v ovs-vswitchd >/dev/null || apt_install openvswitch-switch
	busybox=$(static_busybox)
	say "Docker engine, Open vSwitch and busybox are there"
}

# static_busybox prints the path of a busybox that needs no library. The package is
# unpacked rather than installed: it would push out the one that many systems have.
static_busybox() {
	local p dir=$memory/busybox
	for p in "$(command -v busybox)" "$dir/bin/busybox" "$dir/usr/bin/busybox"; do
		if [ -x "$p" ] && ! ldd "$p" >/dev/null 2>&1 && "$p" --list | grep -qx httpd; then
			echo "$p"
			return
		fi
	done
	[ "${1:-}" != again ] || die "the package busybox-static is not what was expected"
	command -v apt-get >/dev/null || die "missing: a static busybox. Install it and run this again."
	apt_update >&2
	say "apt-get download busybox-static" >&2
	rm -rf "$dir"
	mkdir "$dir"
	(cd "$dir" && apt-get download -qq busybox-static && dpkg-deb -x ./*.deb .) >"$memory/apt.log" 2>&1 || {
		tail -5 "$memory/apt.log" >&2
		die "apt-get could not download busybox-static"
	}
	static_busybox again
}

## What has to run

start_ovs() {
	step "Open vSwitch"
	logs=yes
	if ! ovs_answers; then
		if has_systemd; then
			say "systemctl start openvswitch-switch"
			# Without the kernel's module ovs-vswitchd's unit fails; the
			# switch then forwards in user space.
			systemctl start openvswitch-switch 9>&- || true
			wait_for 10 ovs_answers || true
		fi
		ovs_answers || start_ovs_directly
	fi
	say "$(ovs-vswitchd --version | head -1) answers"
}

start_ovs_directly() {
	mkdir -p /run/openvswitch /var/log/openvswitch /etc/openvswitch
	if ! ovsdb_answers; then
		say "starting ovsdb-server"
		/usr/share/openvswitch/scripts/ovs-ctl --no-ovs-vswitchd --system-id=random start \
			>"$memory/ovs.log" 2>&1 9>&- || { tail -5 "$memory/ovs.log" >&2; return 1; }
		wait_for 10 ovsdb_answers
		remember_daemon ovsdb-server "$(cat /run/openvswitch/ovsdb-server.pid)"
	fi
	if ! vswitchd_answers; then
		say "starting ovs-vswitchd"
		# Not by ovs-ctl, which gives up when there is no kernel module and
		# may remove that of Linux bridges in search of a remedy.
		modprobe -q openvswitch 2>/dev/null || true
		ovs-vswitchd --pidfile --detach --log-file -vconsole:off -vsyslog:off \
			>"$memory/ovs.log" 2>&1 9>&- || { tail -5 "$memory/ovs.log" >&2; return 1; }
		wait_for 10 vswitchd_answers
		remember_daemon ovs-vswitchd "$(cat /run/openvswitch/ovs-vswitchd.pid)"
	fi
}

start_docker() {
	step "Docker engine"
	logs=yes
	if ! docker_answers; then
		if has_systemd; then
			say "systemctl start docker"
			systemctl start docker 9>&-
			wait_for 90 docker_answers
		else
			start_docker_directly
		fi
		wait_for 5 docker_answers
	fi
	say "Docker $(docker version --format '{{.Server.Version}}') answers"
}

start_docker_directly() {
	say "starting dockerd, log in $docker_log"
	setsid dockerd </dev/null >>"$docker_log" 2>&1 9>&- &
	remember_daemon dockerd $!
	wait_for 90 docker_came_or_went $!
}
docker_came_or_went() { # PID
	docker_answers || [ ! -e "/proc/$1" ]
}

## What is built

# find_go prints the path of a go command that is new enough, which may have to
# be fetched. Said on the way goes to the terminal.
find_go() {
	local go
	if go=$(as_owner scripts/find-go.sh); then
		echo "$go"
		return
	fi
	command -v go >/dev/null || apt_install golang-go >&2
	say "fetching the Go toolchain that go.mod asks for" >&2
	as_owner scripts/find-go.sh --fetch 2>"$memory/go.log" || {
		tail -5 "$memory/go.log" >&2
		die "no Go $(sed -n 's/^go //p' go.mod) or newer is installed and none could be fetched." \
			"Install it from https://go.dev/dl into /usr/local/go and run this again."
	}
}

build() {
	step "building the driver"
	local go
	if as_owner make -q GO=false "build/plugin/rootfs/$name" build/plugin/config.json 2>/dev/null; then
		say "build/plugin is up to date"
		return
	fi
	go=$(find_go)
	say "with $("$go" version), which takes a minute or two the first time"
	as_owner make --no-print-directory plugin GO="$go" >"$memory/build.log" 2>&1 || {
		tail -20 "$memory/build.log" >&2
		die "the build failed"
	}
	say "bin/$name, $(stat -c %s bin/$name | awk '{ printf "%.1f", $1 / 1e6 }') MB"
}

## The driver

made_of() { # what the plugin is made of, as one number
	cat build/plugin/config.json "build/plugin/rootfs/$name" | sha256sum | cut -d' ' -f1
}

# foreign_driver prints who serves the driver's name already: the host service, or
# a managed plugin that the demo did not make.
foreign_driver() {
	local enabled p
	enabled=$(docker plugin ls --filter enabled=true --format '{{.Name}}' | awk -v n="$name:" 'index($0, n) == 1')
	for p in $enabled; do
		[ -n "$(remembered plugin "$p")" ] || echo "the managed plugin $p"
	done
	if has_systemd && systemctl is-active -q $name.socket; then
		echo "the host service"
	elif [ -z "$enabled" ] && timeout 10 "bin/$name" status >/dev/null 2>&1; then
		echo "the host service"
	fi
}

start_driver() {
	local foreign
	foreign=$(foreign_driver | head -1)
	if [ -n "$foreign" ]; then
		step "the driver runs already: $foreign. The demo uses it."
		return
	fi
	start_plugin
}

start_plugin() {
	local p sum
	step "managed plugin $plugin"
	logs=yes
	sum=$(made_of)
	# Those of an earlier version, or build. Only one can run; its networks go on.
	for p in $(remembered plugin | cut -d' ' -f1); do
		[ "$(remembered plugin "$p")" != "$p $sum" ] || [ "$p" != "$plugin" ] || continue
		if plugin_there "$p"; then
			say "replacing $p"
			remove_plugin "$p"
		fi
		forget plugin "$p"
	done
	if plugin_there "$plugin" && [ -z "$(remembered plugin "$plugin")" ]; then
		die "there is a plugin $plugin that is not enabled and that the demo did not make." \
			"Enable it (docker plugin enable $plugin) or remove it (docker plugin rm $plugin), and run this again."
	fi
	remember plugin "$plugin" "$sum"
	plugin_there "$plugin" || show docker plugin create "$plugin" build/plugin
	plugin_enabled "$plugin" || show docker plugin enable "$plugin"
	say "$plugin is enabled"
}

install_cli() {
	local sum
	step "command line $cli"
	sum=$(sha256sum "bin/$name" | cut -d' ' -f1)
	if [ -e "$cli" ] && [ "$(remembered cli)" != "$(sha256sum "$cli" | cut -d' ' -f1)" ]; then
		say "$cli is there already and stays as it is"
		return
	fi
	forget cli
	remember cli "$sum"
	install -D -m 755 "bin/$name" "$cli"
	say "$("$cli" version | head -1)"
}

## Network and containers

# refuse_others stops before anything is made when a name of the demo is taken.
refuse_others() {
	local c
	! there network "$network" || ours network "$network" ||
		die "there is a Docker network $network that the demo did not make. Remove or rename it and run this again."
	for c in "${containers[@]}"; do
		! there container "$c" || ours container "$c" ||
			die "there is a container $c that the demo did not make. Remove or rename it and run this again."
	done
	! there image "$image" || ours image "$image" ||
		die "there is an image $image that the demo did not make. Remove or rename it and run this again."
	if ovs-vsctl --timeout=5 br-exists "$bridge" && ! there network "$network"; then
		die "there is a bridge $bridge in Open vSwitch that the demo did not make. Remove it and run this again."
	fi
}

make_image() {
	step "image $image from busybox"
	if there image "$image"; then
		say "is there"
		return
	fi
	local dir=$memory/rootfs applet lib
	rm -rf "$dir"
	mkdir -p "$dir"/{bin,etc,proc,sys,dev,tmp,root,srv}
	cp "$busybox" "$dir/bin/busybox"
	for applet in $("$busybox" --list); do
		[ "$applet" = busybox ] || ln -s busybox "$dir/bin/$applet"
	done
	# As process 1 a shell would take no notice of being told to stop.
	printf '%s\n' '#!/bin/sh' 'trap "exit 0" TERM INT' 'httpd -p 80 -h /srv' \
		'while :; do sleep 3600 & wait $!; done' >"$dir/bin/serve"
	chmod 755 "$dir" "$dir/bin/serve"
	chmod 1777 "$dir/tmp"
	# A static program of an older C library loads these to look a name up.
	if ! printf '%s\n2.34\n' "$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)" | sort -V -C -r; then
		for lib in $(ldconfig -p | sed -n 's/.*=> \(.*\/\(libnss_dns\|libnss_files\|libresolv\|libc\)\.so\..*\)/\1/p') \
			$(ldd "$(command -v sh)" | grep -o '/[^ ]*ld-linux[^ ]*'); do
			install -D "$lib" "$dir$lib"
		done
	fi
	tar -C "$dir" -c . | docker import --change 'CMD ["/bin/serve"]' --change "LABEL $label=1" - "$image" >/dev/null
	rm -rf "$dir"
	say "made"
}

make_network() {
	step "network $network on the bridge $bridge"
	logs=yes
	if there network "$network"; then
		say "is there"
		return
	fi
	there network docker_gwbridge || remember gwbridge docker_gwbridge
	show docker network create --driver $name --opt bridge=$bridge --subnet 10.199.0.0/24 --label "$label=1" "$network"
}

start_containers() {
	local c
	step "containers ${containers[*]}"
	logs=yes
	for c in "${containers[@]}"; do
		! there container "$c" || docker rm -f "$c" >/dev/null
		show docker run -d --name "$c" --hostname "$c" --network "$network" --label "$label=1" "$image"
	done
}

## What there is to see

ping_by_name() {
	step "ping from ocn-demo-a to ocn-demo-b"
	logs=yes
	show docker exec ocn-demo-a ping -c 3 -W 2 ocn-demo-b
}

transfer() {
	local sent received begin end
	step "10 MB over TCP from ocn-demo-b to ocn-demo-a"
	logs=yes
	docker exec ocn-demo-b dd if=/dev/urandom of=/srv/data bs=1M count=10 2>/dev/null
	begin=$(date +%s%N)
	show timeout 60 docker exec ocn-demo-a wget -q -O /tmp/data http://ocn-demo-b/data
	end=$(date +%s%N)
	sent=$(docker exec ocn-demo-b md5sum /srv/data | cut -d' ' -f1)
	received=$(docker exec ocn-demo-a md5sum /tmp/data | cut -d' ' -f1)
	if [ "$sent" != "$received" ]; then
		echo "sent $sent, received $received" >&2
		return 1
	fi
	say "10485760 bytes in $(((end - begin) / 1000000)) ms, checksum $received on both sides"
}

look_around() {
	local port
	step "what Docker says: docker network inspect $network"
	docker network inspect "$network" | sed 's/^/      /'
	step "what the driver says"
	show "bin/$name" status
	step "what Open vSwitch says"
	for port in $(ovs-vsctl list-ports "$bridge"); do
		show ovs-vsctl --columns=name,tag,external_ids list port "$port"
	done
}

next() {
	cat <<-EOF

		Done: ocn-demo-a and ocn-demo-b talk through the bridge $bridge. Type next, for example:

		    sudo docker exec -it ocn-demo-a sh
		    sudo docker network create --driver $name --opt bridge=br-int --opt vlan=42 --subnet 10.42.0.0/24 blue
		    sudo docker run --rm --network blue $image ip addr
		    sudo $name status
		    sudo ovs-vsctl show

		README.md and docs/ tell the rest. Removed again by: sudo make demo-clean
	EOF
}

need_root demo
only_one
trap failed EXIT
install_all
start_ovs
start_docker
refuse_others
build
start_driver
install_cli
make_image
make_network
start_containers
ping_by_name
transfer
look_around
trap - EXIT
next
