#!/bin/bash
# Runs every fuzz test, one after the other, for the time that is given to each.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:?usage: fuzz.sh TIME}
go=${GO:-go}
export OCN_UNIT=1

grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' cmd internal | sort |
	while IFS=: read -r file func; do
		name=${func#func }
		echo "==> $name in $(dirname "$file")"
		"$go" test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$(dirname "$file")" </dev/null
	done
