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
name='dstack-j1'
state() {
	id=$(timeout 20 'docker' ps --all --quiet --filter "name=^$name\$" < /dev/null) || return
	if [ -n "$id" ]; then
		timeout 20 'docker' inspect --type container --format '{{.State.Status}}' "$id" < /dev/null || {
			id=$(timeout 20 'docker' ps --all --quiet --filter "name=^$name\$" < /dev/null) && [ -z "$id" ]
		}
	fi
}
leave() {
	# shellcheck disable=SC2016
	dk exec "$name" /bin/sh -c '
		each() {
			found=1
			for process in /proc/[0-9]*; do
				case $(cat "$process/environ") in
					*"DSTACK_EXEC=$id"*) kill -"$1" "${process#/proc/}" && found=0 ;;
				esac
			done
			return "$found"
		}
		id=$1
		each HUP || exit 0
		each TERM
		sleep 1
		each KILL
		exit 0' sh 'e1' 2> /dev/null || :
}
trap - EXIT
found=$(state)
echo "state=$found"
[ "$found" = running ] || exit 0
(
	trap '' HUP INT TERM
	while [ -d "/proc/$PPID" ] && kill -0 $$; do sleep 1; done
	leave
) < /dev/null > /dev/null 2>&1 &
watcher=$!
over() {
	kill -KILL "$watcher" 2> /dev/null || :
	exit "$1"
}
code=0
relay='for python in python3 python; do
	command -v "$python" > /dev/null 2>&1 || continue
	exec "$python" -S -E -c '\''
import os, socket, sys, threading
try:
    there = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
except Exception:
    sys.exit(96)
there.settimeout(None)
def back():
    try:
        while True:
            data = there.recv(65536)
            if not data:
                break
            while data:
                data = data[os.write(1, data):]
    finally:
        os._exit(0)
threading.Thread(target=back).start()
try:
    while True:
        data = os.read(0, 65536)
        if not data:
            break
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)
except Exception:
    os._exit(0)
'\'' "$1" "$2"
done
if command -v bash > /dev/null 2>&1; then
	exec bash -c '\''
exec 3<> "/dev/tcp/$0/$1" || exit 96
exec 4<&0
cat <&4 >&3 &
writer=$!
cat <&3
kill "$writer"
exit 0'\'' "$1" "$2"
fi
for nc in nc ncat; do
	if command -v "$nc" > /dev/null 2>&1; then exec "$nc" "$1" "$2"; fi
done
if command -v busybox > /dev/null 2>&1 && busybox nc --help > /dev/null 2>&1; then exec busybox nc "$1" "$2"; fi
exit 97
'
dk exec --interactive --env DSTACK_EXEC='e1' "$name" /bin/sh -c "$relay" sh 127.0.0.1 '8888' 2> /dev/null || code=$?
if [ "$code" = '97' ]; then
	address=$(dk inspect --type container --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$name" < /dev/null)
	address=${address%% *}
	code=0
	/bin/sh -c "$relay" sh "${address:-127.0.0.1}" '8888' 2> /dev/null || code=$?
fi
over "$code"
}
main
