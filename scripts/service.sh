#!/bin/bash
# service.sh install|uninstall: the host service. With DESTDIR only files are
# written, for a package.
set -euo pipefail
cd "$(dirname "$0")/.."

name=ovs-container-network
destdir=${DESTDIR:-}
prefix=${PREFIX:-/usr/local}
bin=$prefix/bin
declare -A completions=(
	[bash]=$prefix/share/bash-completion/completions/$name
	[zsh]=$prefix/share/zsh/site-functions/_$name
	[fish]=$prefix/share/fish/vendor_completions.d/$name.fish
)
units=/etc/systemd/system
dropin=docker.service.d/10-$name.conf

say() { echo "==> $*"; }

# systemd of this machine is to be told.
live() { [ -z "$destdir" ] && [ -d /run/systemd/system ]; }

need_root() {
	[ -n "$destdir" ] || [ "$(id -u)" = 0 ] || {
		echo "this needs root: sudo make $1" >&2
		exit 1
	}
}

# The managed plugin of the same name, if one is enabled: it holds the socket.
managed_plugin() {
	command -v docker >/dev/null || return 0
	timeout 10 docker plugin ls --filter enabled=true --format '{{.Name}}' 2>/dev/null | grep "^$name:" || true
}

install_service() {
	local plugin shell
	say "installing $bin/$name"
	install -D -m 755 "bin/$name" "$destdir$bin/$name"
	for shell in "${!completions[@]}"; do
		"bin/$name" completion "$shell" | install -D -m 644 /dev/stdin "$destdir${completions[$shell]}"
	done
	say "installing units to $units"
	install -d -m 755 "$destdir$units/docker.service.d"
	install -m 644 "systemd/$name.socket" "$destdir$units/$name.socket"
	sed "s,/usr/local/bin/,$bin/," "systemd/$name.service" |
		install -m 644 /dev/stdin "$destdir$units/$name.service"
	install -m 644 "systemd/$dropin" "$destdir$units/$dropin"
	live || return 0

	systemctl daemon-reload
	plugin=$(managed_plugin)
	if [ -n "$plugin" ]; then
		say "not started: the managed plugin $plugin is enabled, and only one of them can run."
		echo "    docker plugin disable -f $plugin && systemctl enable --now $name.socket $name.service"
		return 0
	fi
	systemctl enable "$name.socket" "$name.service"
	systemctl start "$name.socket"
	# The new binary, after an upgrade: calls wait at the socket meanwhile.
	systemctl restart "$name.service"
	say "$name.service runs"
}

uninstall_service() {
	if live; then
		systemctl disable --now "$name.socket" "$name.service" 2>/dev/null || true
	fi
	say "removing $bin/$name and the units"
	rm -f "${completions[@]/#/$destdir}" "$destdir$bin/$name" "$destdir$units/$name.socket" "$destdir$units/$name.service" "$destdir$units/$dropin"
	rmdir --ignore-fail-on-non-empty "$destdir$units/docker.service.d" 2>/dev/null || true
	if live; then
		systemctl daemon-reload
	fi
	say "kept: /var/lib/$name, the state of its networks"
}

case ${1:-} in
install) need_root install && install_service ;;
uninstall) need_root uninstall && uninstall_service ;;
*)
	echo "usage: $0 install|uninstall" >&2
	exit 2
	;;
esac
