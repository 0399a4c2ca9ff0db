# shellcheck shell=bash disable=SC2034
# What demo.sh and demo-clean.sh share. The caller has `set -euo pipefail`.

name=ovs-container-network
network=ocn-demo
bridge=br-ocn-demo
image=ocn-demo:latest
containers=(ocn-demo-a ocn-demo-b)
cli=/usr/local/bin/$name

# Docker's objects of the demo are known by their label. What has no labels is
# remembered here, one thing in a line:
#   plugin NAME:TAG SHA256    what it was made of
#   cli SHA256                the command in /usr/local/bin
#   gwbridge docker_gwbridge  Docker made that network for us
#   daemon NAME PID START     started by the demo itself; START tells it from a
#                             later process of the same number
#   package NAME              installed, stays
label=$name.demo
memory=/var/lib/$name-demo
made=$memory/made
docker_log=/var/log/$name-demo-dockerd.log

# The engine of this machine, wherever the commands of this user may point to.
unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
export DOCKER_HOST=unix:///var/run/docker.sock

doing='' # the step that a failure is reported for
logs=''  # whether logs of daemons may tell its cause

step() {
	doing=$* logs=''
	echo "==> $*"
}
say() { echo "    $*"; }
die() {
	trap - EXIT
	echo >&2
	echo "demo: $*" >&2
	exit 1
}

# show prints a command as one would type it, and runs it.
show() {
	echo "    \$ $*"
	"$@" 2>&1 | sed 's/^/      /'
}

need_root() {
	[ "$(id -u)" = 0 ] || die "this needs root: sudo make $1"
}

# only_one keeps a second run out until this one has ended. The lock goes to no
# daemon: they are started with descriptor 9 closed.
only_one() {
	mkdir -p "$memory"
	exec 9>"$memory/lock"
	flock -n 9 || die "make demo or make demo-clean runs already"
}

remember() {
	grep -qxF -e "$*" "$made" 2>/dev/null || echo "$*" >>"$made"
}
remembered() { # KIND [WORD]: the rest of such lines
	[ -f "$made" ] || return 0
	awk -v kind="$1" -v word="${2:-}" '$1 == kind && (word == "" || $2 == word) {
		sub(/^[^ ]+ ?/, ""); print }' "$made"
}
forget() { # KIND [WORD]
	[ -f "$made" ] || return 0
	awk -v kind="$1" -v word="${2:-}" '!($1 == kind && (word == "" || $2 == word))' "$made" >"$made.new"
	mv "$made.new" "$made"
}

has_systemd() { [ -d /run/systemd/system ]; }

# The start of a process, in ticks since boot: a process is told from a later one
# of the same number by it.
start_of() { # PID
	sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
}
remember_daemon() { # NAME PID
	forget daemon "$1"
	remember daemon "$1" "$2" "$(start_of "$2")"
}

docker_answers() { timeout 5 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
ovsdb_answers() { timeout 5 ovs-vsctl --timeout=4 --no-wait get Open_vSwitch . _uuid >/dev/null 2>&1; }
vswitchd_answers() { timeout 5 ovs-appctl --timeout=4 -t ovs-vswitchd version >/dev/null 2>&1; }
ovs_answers() { ovsdb_answers && vswitchd_answers; }

# wait_for waits at most so many seconds until the command succeeds.
wait_for() { # SECONDS COMMAND...
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $deadline ] || return 1
		sleep 0.2
	done
}

# ours is true of an object of Docker that the demo made, there of one that exists.
there() { docker "$1" inspect "$2" >/dev/null 2>&1; }
ours() { # network|container|image NAME
	local labels=.Labels
	[ "$1" = network ] || labels=.Config.Labels
	[ "$(docker "$1" inspect -f "{{index $labels \"$label\"}}" "$2" 2>/dev/null)" = 1 ]
}

plugin_there() { docker plugin inspect "$1" >/dev/null 2>&1; }
plugin_enabled() { [ "$(docker plugin inspect -f '{{.Enabled}}' "$1" 2>/dev/null)" = true ]; }
remove_plugin() { # NAME:TAG
	# Forced: networks that use it may remain, and go on with the next one.
	docker plugin disable -f "$1" >/dev/null 2>&1 || true
	docker plugin rm -f "$1" >/dev/null
}
