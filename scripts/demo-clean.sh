#!/bin/bash
# make demo-clean: removes what make demo made on this machine, and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/demo-lib.sh

kept=()
keep() { kept+=("$*"); }

remove_docker_objects() {
	local c n
	for c in "${containers[@]}"; do
		if ours container "$c"; then
			step "removing container $c"
			docker rm -f "$c" >/dev/null
		fi
	done
	if ours network "$network"; then
		n=$(docker network inspect -f '{{range .Containers}}{{.Name}} {{end}}' "$network")
		[ -z "$n" ] || die "other containers are on the network $network: ${n% }." \
			"Disconnect them (docker network disconnect $network NAME) or remove them, and run this again."
		step "removing network $network"
		docker network rm "$network" >/dev/null
	fi
	if ours image "$image"; then
		step "removing image $image"
		docker image rm "$image" >/dev/null ||
			keep "image $image: a container of it is there"
	fi
	if [ -n "$(remembered gwbridge)" ]; then
		remove_gwbridge
	fi
}

# Docker makes this network for the first container that needs a way out, and
# never removes it.
remove_gwbridge() {
	if there network docker_gwbridge; then
		if docker network rm docker_gwbridge >/dev/null 2>&1; then
			step "removed network docker_gwbridge"
		else
			keep "network docker_gwbridge: other containers use it"
		fi
	fi
	forget gwbridge
}

# users_networks prints Docker's networks that need the driver, for their addresses
# at least.
users_networks() {
	docker network ls -q | xargs -r docker network inspect -f '{{.Name}} {{.Driver}} {{.IPAM.Driver}}' |
		awk -v n="$name" '{ for (i = 2; i <= 3; i++) if ($i == n || index($i, n ":") == 1) { print $1; next } }'
}

remove_plugins() {
	local p others
	[ -n "$(remembered plugin)" ] || return 0
	others=$(users_networks | paste -sd' ')
	if [ -n "$others" ]; then
		keep "the plugin and $cli, for the networks of others: $others. Once they are gone, run this again."
		return
	fi
	for p in $(remembered plugin | cut -d' ' -f1); do
		if plugin_there "$p"; then
			step "removing plugin $p"
			remove_plugin "$p"
		fi
		forget plugin "$p"
	done
}

remove_cli() {
	[ -n "$(remembered cli)" ] || return 0
	if [ -n "$(remembered plugin)" ]; then
		return # goes with the plugin
	fi
	if [ -e "/etc/systemd/system/$name.service" ]; then
		keep "$cli: the host service is installed"
	elif [ -e "$cli" ] && [ "$(sha256sum "$cli" | cut -d' ' -f1)" = "$(remembered cli)" ]; then
		step "removing $cli"
		rm -f "$cli"
	fi
	forget cli
}

# running is true as long as it is the process that the demo started.
running() { # PID START
	[ -n "$2" ] && [ "$(start_of "$1")" = "$2" ]
}
ended() { ! running "$@"; }

stop_daemon() { # NAME
	local pid start
	read -r _ pid start < <(remembered daemon "$1") || return 0
	if running "$pid" "$start"; then
		step "stopping $1"
		kill "$pid"
		wait_for 30 ended "$pid" "$start" || die "$1 (process $pid) does not end"
	fi
	forget daemon "$1"
}

stop_daemons() {
	if [ -n "$(remembered daemon dockerd)" ]; then
		if [ -n "$(docker ps -q 2>/dev/null)" ] || [ -n "$(remembered plugin)" ]; then
			keep "dockerd and Open vSwitch run: there are containers or networks that need them"
			return
		fi
		stop_daemon dockerd
		rm -f "$docker_log"
	fi
	if [ -n "$(remembered daemon ovs-vswitchd)$(remembered daemon ovsdb-server)" ]; then
		if [ -n "$(ovs-vsctl --timeout=5 list-br 2>/dev/null)" ]; then
			keep "Open vSwitch runs: it has bridges that the demo did not make"
			return
		fi
		stop_daemon ovs-vswitchd
		stop_daemon ovsdb-server
	fi
}

need_root demo-clean
if [ ! -d "$memory" ]; then
	echo "There is nothing of the demo on this machine."
	exit
fi
only_one
if command -v docker >/dev/null && docker_answers; then
	remove_docker_objects
	remove_plugins
elif [ -n "$(remembered plugin)" ]; then
	die "the Docker engine does not answer: start it and run this again"
fi
remove_cli
stop_daemons

packages=$(remembered package | paste -sd' ')
[ -z "$packages" ] || keep "packages: $packages"
[ ! -d /var/lib/$name ] || keep "/var/lib/$name, the driver's state"
step "done"
for k in "${kept[@]+"${kept[@]}"}"; do
	say "kept $k"
done
if [ -z "$(remembered plugin)$(remembered daemon)" ]; then
	rm -rf "$memory"
fi
