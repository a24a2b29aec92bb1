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
image='busybox'
work=$base/pulls/$$
sweep() {
	for left in "$base"/pulls/*/; do
		if [ -d "$left" ] && flock -n "${left}lock" true; then rm -rf "$left"; fi
	done
}

finish() {
	kill "$client" "$reader" 2> /dev/null || :
	rm -rf "$work"
}

# The daemon pulls only while the connection is open.
by_api() {
	mkfifo "$work/request"
	'docker' system dial-stdio < "$work/request" 2>&1 3<&- 9>&- &
	client=$!
	{
		echo 'POST /images/create?fromImage=busybox&tag=latest HTTP/1.0'
		echo 'Host: docker'
		echo
		exec cat <&3
	} > "$work/request" 9>&- &
	reader=$!
}

until_reader_leaves() {
	exec 9>&-
	trap 'kill "$!" 2> /dev/null; exit 0' TERM
	cat <&3 > /dev/null &
	wait "$!" || :
	kill "$client" 2> /dev/null || :
}
by_client() {
	'docker' pull "$image" 2>&1 3<&- 9>&- &
	client=$!
	until_reader_leaves > /dev/null 2>&1 &
	reader=$!
}

# If this machine's user has logged in, the client knows how.
logged_in() {
	grep -s -q -E '"(auth|identitytoken|credsStore|credHelpers)"' "${DOCKER_CONFIG:-$HOME/.docker}/config.json"
}

exec 3<&0 < /dev/null
client='' reader=''
mkdir -p "$base/pulls"
exec 8> "$base/pulls/lock"
flock 8
sweep
mkdir "$work"
trap finish EXIT
trap 'exit 143' TERM HUP INT
exec 9> "$work/lock"
flock -n 9
exec 8>&-
if logged_in; then by_client; else by_api; fi
wait "$client" || :
dk image inspect "$image" > /dev/null 2>&1
}
main
