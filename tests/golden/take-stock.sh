main() {
set -eu
umask 077
export LC_ALL=C
dk() { 'docker' "$@"; }
machine_id() {
	for file in /etc/machine-id /var/lib/dbus/machine-id; do
		machine=
		if [ -r "$file" ]; then read -r machine < "$file" || :; fi
		case $machine in
			'' | *[!0-9a-f]*) ;;
			*) return ;;
		esac
	done
	machine=$(uname -n | sha256sum | cut -c 1-32)
}
root='~/.dstack-host'
case $root in
	\~/*) root=$HOME/${root#??} ;;
esac
machine_id
if [ "$machine" != '0123456789abcdef0123456789abcdef' ]; then
	echo "machine=$machine"
	exit 94
fi
base=$root/$machine/'5e12'
# A script may have something to remove at its end.
cleanup() { :; }
# Programs don't always say that they can't write because the disk is full.
blame_disk() {
	status=$?
	if [ "$status" != 0 ] && [ -d "$base" ]; then
		printf '%65536s' . 2> /dev/null > "$base/room.$$" || echo 'no space left on device' >&2
		rm -f "$base/room.$$"
	fi
	cleanup
	exit "$status"
}
trap blame_disk EXIT
claim() {
	if [ -d "$io/started" ] && ! [ -L "$io/started" ]; then
		claim=fenced
	elif [ -e "$io/started" ] || [ -L "$io/started" ]; then
		claim=claimed
	else
		claim=none
	fi
}

own() {
	[ -d "$base" ] || return 0
	ours='' owner='' since=0 where=''
	if [ -r "$base/owner" ]; then read -r owner since where < "$base/owner" || :; fi
	for each in '' 'i1' 'i0'; do
		if [ "$each" = "$owner" ]; then ours=yes; fi
	done
	if [ -z "$ours" ] && [ "${since:-0}" -ge '2' ]; then
		echo "owner=$where" >&2
		exit 95
	fi
	printf '%s\n' 'i1 2 lab:/home/ann/.dstack' > "$base/owner.new"
	mv "$base/owner.new" "$base/owner"
}

jobs() {
	for job in "$base"/jobs/*/; do
		job=${job%/} io=${job%/}/io
		if ! [ -d "$job" ]; then continue; fi
		ended=no
		if [ -f "$io/exit" ] && ! [ -L "$io/exit" ]; then ended=yes; fi
		claim
		echo "attempt=${job##*/} $claim $ended $(stat -c %Y "$io/started" 2> /dev/null || :)"
		if [ -f "$job/record" ]; then printf 'record=%s\n' "$(head -c 1048576 "$job/record")"; fi
		if [ -f "$job/origin" ]; then cat "$job/origin"; fi
	done
	for kept in "$base"/kept/*/; do
		kept=${kept%/}
		if [ -d "$kept" ]; then echo "kept=${kept##*/}"; fi
	done
}

own
jobs
containers() {
	timeout 20 'docker' ps --all --filter label=dstack.job --filter label=dstack.server='5e12' \
		--format 'container=''{{.Names}} {{.Status}}' < /dev/null
}
if ! listed=$(containers 2>&1); then
	listed="silence=$(printf '%s' "$listed" | tr '\n' ' ')"
fi
printf '%s\n' "$listed"
}
main
