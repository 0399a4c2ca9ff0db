#!/bin/bash
# Prints the path of a go command that can build the project: the one in PATH, or
# else where its usual installers put it, which sudo's PATH does not have. Fails
# and prints nothing if there is none.
#
# With --fetch an older go command, such as a distribution's, is enough: it
# fetches the toolchain from the module proxy and checks it against the checksum
# database. That works with those too which cannot do it by themselves (before 1.21).
# With --install, the distribution's is installed first when there is none.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/.."

wanted=$(sed -n 's/^go //p' go.mod)

version() { # GO: prints such as 1.26.3
	"$1" env GOVERSION 2>/dev/null | sed -n 's/^go\([0-9.]*\).*/\1/p'
}

at_least() { # VERSION MINIMUM
	[ "$(printf '%s\n' "$@" | sort -V | head -1)" = "$2" ]
}

candidates() {
	local home
	command -v go || true
	printf '%s\n' /usr/local/go/bin/go /usr/lib/go-*/bin/go /usr/lib/go/bin/go /snap/bin/go
	for home in "${HOME:-/root}" "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)"; do
		printf '%s\n' "$home"/sdk/go*/bin/go "$home"/.local/go/bin/go \
			"$home"/go/pkg/mod/golang.org/toolchain@*/bin/go
	done
}

fetch() { # GO
	local arch dir
	arch=$("$1" env GOHOSTARCH)
	dir=$(cd / && GOTOOLCHAIN=local GOFLAGS='' "$1" mod download -json \
		"golang.org/toolchain@v0.0.1-go$wanted.linux-$arch" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	[ -n "$dir" ] || return 1
	# A module's files are not executable.
	chmod +x "$dir"/bin/* "$dir"/pkg/tool/*/*
	echo "$dir/bin/go"
}

# Not whatever go.mod of this directory would switch to.
export GOTOOLCHAIN=local
best=''
search() { # prints one that is new enough, or sets best
	local go v best_version=''
	best=''
	while read -r go; do
		[ -x "$go" ] || continue
		v=$(cd / && version "$go")
		[ -n "$v" ] || continue
		if at_least "$v" "$wanted"; then
			echo "$go"
			return
		fi
		if [ -z "$best" ] || ! at_least "$best_version" "$v"; then
			best=$go best_version=$v
		fi
	done < <(candidates)
	return 1
}

search && exit
case ${1:-} in
--fetch) ;;
--install)
	if [ -z "$best" ]; then
		echo "installing golang-go" >&2
		{ apt-get update -qq && apt-get install -qq -y --no-install-recommends golang-go; } >&2
		search && exit
	fi
	;;
*) exit 1 ;;
esac
[ -n "$best" ] || exit 1
fetch "$best"
