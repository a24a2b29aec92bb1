main() {
set -eu
umask 077
export LC_ALL=C
dk() { 'podman' "$@"; }
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

until_reader_leaves() {
	exec 9>&-
	trap 'kill "$!" 2> /dev/null; exit 0' TERM
	cat <&3 > /dev/null &
	wait "$!" || :
	kill "$client" 2> /dev/null || :
}
by_client() {
	echo '{"auths": {"lab:5000": {"auth": "YW5uOml0J3Mgc2VjcmV0"}}}' > "$work/login.json"
	'podman' pull --authfile "$work/login.json" "$image" 2>&1 3<&- 9>&- &
	client=$!
	until_reader_leaves > /dev/null 2>&1 &
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
by_client
wait "$client" || :
dk image inspect "$image" > /dev/null 2>&1
}
main
