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
job=$base/'jobs/j1'
io=$job/io
name='dstack-j1'
claim() {
	if [ -d "$io/started" ] && ! [ -L "$io/started" ]; then
		claim=fenced
	elif [ -e "$io/started" ] || [ -L "$io/started" ]; then
		claim=claimed
	else
		claim=none
	fi
}
state() {
	id=$(timeout 20 'docker' ps --all --quiet --filter "name=^$name\$" < /dev/null) || return
	if [ -n "$id" ]; then
		timeout 20 'docker' inspect --type container --format '{{.State.Status}}' "$id" < /dev/null || {
			id=$(timeout 20 'docker' ps --all --quiet --filter "name=^$name\$" < /dev/null) && [ -z "$id" ]
		}
	fi
}

alive() {
	case $1 in
		running | paused | restarting | stopping) ;;
		*) return 1 ;;
	esac
}

# Whether the exit file has a code: the job may have made the file itself.
recorded() {
	for exit in "$job/exit" "$io/exit"; do
		if [ -f "$exit" ] && ! [ -L "$exit" ] && head -c 99 "$exit" | grep -q '^[0-9]\{1,3\}\( \|$\)'; then return; fi
	done
	return 1
}

answer() { echo "outcome=$1" && exit 0; }

stop() {
	mkdir -p "$io"
	mkdir "$io/started" 2> /dev/null || :
	found=$(state)
	claim
	case $claim in
		none) echo "can't fence the job: $io/started can't be created" >&2 && exit 1 ;;
		fenced)
			# The container has lost its claim, whether it is removed now or when the job is discarded.
			if [ -n "$found" ]; then dk rm --force "$name" > /dev/null 2>&1 || :; fi
			rm -f "$io/env"
			answer fenced
			;;
	esac
	if recorded || ! alive "$found"; then answer ended; fi
	# It tells that the signal is dstack's. A full disk must not keep a job from being stopped.
	true 2> /dev/null > "$job/stop" || :
	dk kill "$name" > /dev/null 2>&1 || :
	found=$(state)
	if alive "$found"; then answer stopping; fi
	answer ended
}
stop < /dev/null
}
main
