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
image='lab:5000/it'\''s:1'
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
		echo 'POST /images/create?fromImage=lab%3A5000%2Fit%27s%3A1 HTTP/1.0'
		echo 'Host: docker'
		echo 'X-Registry-Auth: eyJ1c2VybmFtZSI6ICJhbm4iLCAicGFzc3dvcmQiOiAiaXQncyBzZWNyZXQiLCAic2VydmVyYWRkcmVzcyI6ICJsYWI6NTAwMCJ9'
		echo
		exec cat <&3
	} > "$work/request" 9>&- &
	reader=$!
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
by_api
wait "$client" || :
dk image inspect "$image" > /dev/null 2>&1
}
main
