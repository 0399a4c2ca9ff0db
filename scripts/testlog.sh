#!/bin/bash
# Reads what `go test -v` prints, and prints one line for each test, all output of
# those that fail, and what go says of each package as it comes and once more at
# the end, with the first lines of what the tests that failed said. What go says of
# the packages goes to the file that is given, too.
set -uo pipefail

results=${1:?usage: testlog.sh FILE}
mkdir -p "$(dirname "$results")"
: >"$results"

declare -A output=() # of each test at the top level that has not ended
declare -a failed=()
said=''              # by those
declare -i passed=0 skipped=0
current=''           # the test whose output follows
after=''             # result of the test whose subtests' results follow

flush() { # what is left of tests that never ended: a panic, a timeout
	local t
	for t in "${!output[@]}"; do
		printf '%s' "${output[$t]}"
	done
}

while IFS= read -r line || [ -n "$line" ]; do
	if [[ $line =~ ^===\ (RUN|CONT|NAME|PAUSE)\ +([^/]+)(/.*)?$ ]]; then
		current=${BASH_REMATCH[2]} after=''
		if [ "${BASH_REMATCH[1]}" = RUN ] && [ -z "${BASH_REMATCH[3]}" ]; then
			output[$current]=''
			printf '%s\n' "$line"
		fi
	elif [[ $line =~ ^---\ (PASS|FAIL|SKIP):\ ([^ ]+) ]]; then
		after=${BASH_REMATCH[1]} current=${BASH_REMATCH[2]}
		case $after in
		PASS) passed+=1 ;;
		SKIP) skipped+=1 ;;
		FAIL)
			failed+=("$current")
			said+="--- $current"$'\n'$(awk '/^ +[a-z0-9_]+\.go:[0-9]+: / { n = 5 } n-- > 0' <<<"${output[$current]-}" | tail -n 100)$'\n'
			;;
		esac
		[ "$after" = PASS ] || printf '%s' "${output[$current]-}"
		unset "output[$current]"
		current=''
		printf '%s\n' "$line"
	elif [[ $line =~ ^\ +---\ (PASS|FAIL|SKIP): ]]; then
		[ "$after" != FAIL ] || [ "${BASH_REMATCH[1]}" = PASS ] || printf '%s\n' "$line"
	elif [[ $line =~ ^(ok|FAIL|\?)\ *$'\t' ]]; then
		if [ "${BASH_REMATCH[1]}" = FAIL ]; then flush; fi
		output=() current='' after=''
		printf '%s\n' "$line"
		printf '%s\n' "$line" >>"$results"
	elif [ "$line" = PASS ] || [ "$line" = FAIL ]; then
		after=''
	elif [ -n "$current" ]; then
		output[$current]+=$line$'\n'
	else
		printf '%s\n' "$line"
	fi
done
flush

echo
printf '%s' "$said"
printf -- '--- failed: %s\n' "${failed[@]+"${failed[@]}"}" | sed '/: $/d'
echo "$passed tests passed, ${#failed[@]} failed, $skipped skipped"
cat "$results"
