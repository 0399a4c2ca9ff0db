#!/bin/bash
# Installs what the tests need.
#
#   setup.sh              Debian packages on this machine
#   setup.sh root SUITE   another Debian (sid, trixie, bullseye) as a root for hosts
#                         of the lab, below ${OCN_LAB_CACHE:-/var/cache/ovs-container-network-lab}
#
# No daemon is started, and running it again is quick when all is there.
set -euo pipefail

cache=${OCN_LAB_CACHE:-/var/cache/ovs-container-network-lab}
packages="docker.io openvswitch-switch ovn-central ovn-host iperf3 tcpdump busybox-static dnsmasq-base kea-dhcp4-server isc-dhcp-client ethtool tini iptables
	nftables debootstrap debian-archive-keyring iproute2 iputils-ping jq procps util-linux
	ca-certificates curl gcc libc6-dev"
# Of a root: the first must be there, the others are not in every suite, where
# the first bring what they hold.
root_packages="docker.io containerd runc openvswitch-switch iproute2 iptables nftables iputils-ping
	ethtool tcpdump procps tini ca-certificates"
root_optional="docker-cli docker-compose ovn-central ovn-host"
root_days=14

say() { echo "setup: $*"; }
die() {
	echo "setup: $*" >&2
	exit 1
}

# The package scripts ask this file whether they may start a service.
policy=/usr/sbin/policy-rc.d
forbid_daemons() { # ROOT
	printf '#!/bin/sh\nexit 101\n' >"$1$policy"
	chmod 755 "$1$policy"
}

install_packages() {
	local missing=() p
	for p in $packages; do
		# Docker's own packages hold the same programs and exclude Debian's.
		if [ "$p" = docker.io ] && command -v dockerd >/dev/null && command -v containerd >/dev/null && command -v runc >/dev/null; then
			continue
		fi
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	if [ ${#missing[@]} = 0 ]; then
		say "all packages are installed"
		return
	fi
	if [ ! -e $policy ]; then
		trap 'rm -f $policy' EXIT
		forbid_daemons ""
	fi
	export DEBIAN_FRONTEND=noninteractive
	say "apt-get update"
	apt-get update -qq
	say "installing ${missing[*]}"
	apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# mirror prints the archive that this machine takes its own packages from.
mirror() {
	apt-get indextargets --format '$(SITE) $(REPO_URI) $(ORIGIN)' 'Created-By: Packages' |
		awk '$3 == "Debian" && $2 !~ /security/ && !n++ { sub("/$", "", $2); print $2 }'
}

# make_root fills the directory $2 with suite $1. It runs in mount and pid
# namespaces of its own: whatever a package script starts or mounts in spite of
# the policy ends with it.
make_root() {
	local suite=$1 dir=$2 from p extra=() f
	from=$(mirror)
	# On another distribution there is none, and debootstrap takes its default.
	say "debootstrap $suite${from:+ from $from}"
	debootstrap --variant=minbase --include=ca-certificates "$suite" "$dir" ${from:+"$from"} >"$dir.log" 2>&1 ||
		{ tail -20 "$dir.log" >&2; die "debootstrap of $suite failed"; }
	forbid_daemons "$dir"
	echo force-unsafe-io >"$dir/etc/dpkg/dpkg.cfg.d/lab"
	printf 'path-exclude=%s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' >>"$dir/etc/dpkg/dpkg.cfg.d/lab"
	cp /etc/resolv.conf /etc/hosts "$dir/etc/"
	# The way to the archive may be a proxy, and its certificate a private one.
	for f in /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf.d/*Proxy* /etc/apt/apt.conf; do
		[ ! -f "$f" ] || cp "$f" "$dir$f"
	done
	# If this machine takes an archive that is behind the times, so does the root.
	apt-config dump | grep -E '^Acquire::Check-(Valid-Until|Date) ' >"$dir/etc/apt/apt.conf.d/99lab" || true
	f=/etc/ssl/certs/ca-certificates.crt
	[ ! -f $f ] || cp $f "$dir$f"

	mount -t proc proc "$dir/proc"
	say "installing packages in $suite"
	export DEBIAN_FRONTEND=noninteractive
	chroot "$dir" apt-get update >>"$dir.log" 2>&1 ||
		{ tail -20 "$dir.log" >&2; die "reading the package lists of $suite failed"; }
	for p in $root_optional; do
		[ -z "$(chroot "$dir" apt-cache madison "$p")" ] || extra+=("$p")
	done
	# shellcheck disable=SC2086 # the list is split on purpose
	chroot "$dir" apt-get install -y --no-install-recommends $root_packages "${extra[@]}" >>"$dir.log" 2>&1 ||
		{ tail -20 "$dir.log" >&2; die "installing packages in $suite failed"; }
	chroot "$dir" apt-get clean
	# Databases made by a package script carry an identity: each host makes its own.
	rm -rf "$dir"/var/lib/ovn/*.db "$dir/etc/openvswitch/conf.db" "$dir/etc/openvswitch/system-id.conf" "$dir$policy" "$dir"/var/lib/apt/lists/*
	umount "$dir/proc"
	chroot "$dir" dpkg-query -W -f '${Package} ${Version}\n' docker.io containerd runc openvswitch-switch
}

# fresh says whether the root $1 was made with the packages of stamp $2 not long ago.
fresh() {
	[ "$(cat "$1/.setup-stamp" 2>/dev/null)" = "$2" ] && [ -n "$(find "$1/.setup-stamp" -mtime -$root_days)" ]
}

root() {
	local suite=$1 dir=$cache/$1 stamp part
	case $suite in sid | trixie | bullseye) ;; *) die "unknown suite $suite: want sid, trixie or bullseye" ;; esac
	stamp=$(echo $root_packages $root_optional | sha256sum | cut -c1-16)
	if fresh "$dir" "$stamp"; then
		say "$dir is up to date"
		return
	fi
	command -v debootstrap >/dev/null || die "debootstrap is missing: run $0 first"
	mkdir -p "$cache"
	# Two at once for the same suite would do the work twice and one of them for nothing.
	exec 9>"$cache/$suite.lock"
	flock 9
	if fresh "$dir" "$stamp"; then
		return
	fi
	part=$cache/.$suite.part
	rm -rf "$part" "$part.log"
	mkdir "$part"
	unshare --mount --pid --fork --kill-child --mount-proc bash "$0" make-root "$suite" "$part"
	echo "$stamp" >"$part/.setup-stamp"
	# A host that runs on the old root goes on reading it, so that is kept until
	# the next time.
	rm -rf "$dir.old"
	[ ! -e "$dir" ] || mv "$dir" "$dir.old"
	mv "$part" "$dir"
	rm -f "$part.log"
	say "$dir is ready"
}

[ "$(id -u)" = 0 ] || die "must run as root"
case ${1:-} in
"") install_packages ;;
root) root "${2:?suite: sid, trixie or bullseye}" ;;
make-root) make_root "$2" "$3" ;; # by root, in namespaces
*) die "usage: $0 [root SUITE]" ;;
esac
