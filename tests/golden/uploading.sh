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
up=$job/upload
lock=$job/upload.lock
seconds='5'
if ! command -v curl > /dev/null; then
	echo 'curl is not installed on this machine, and storage on S3 needs it; install it: apt-get install curl' >&2
	exit 1
fi
# Includes S3's answers to the round that is under way.
sent() {
	cat "$up"/answers.* 2> /dev/null | sed -n 's/ 200$//p' | sort -u - "$up/done" 2> /dev/null | sed 's/^/sent=/'
}

# What the last answers were about what is not sent yet.
trouble() {
	cat "$up/error".* "$up/trouble" 2> /dev/null | tail -n 1 | sed 's/^/trouble=/'
}

tries=0
until flock -n "$lock" true; do
	if [ "$tries" -ge "$((seconds * 10))" ]; then
		echo running=yes
		sent
		cat "$up"/answers.* 2> /dev/null | sed -n '/ 200$/!s/^/refused=/p'
		trouble
		exit 0
	fi
	tries=$((tries + 1))
	sleep 0.1
done
echo running=no
if [ -d "$up" ]; then
	sent
	cat "$up"/answers.* | sed -n '/ 200$/!s/^/refused=/p'
	trouble
fi
}
main
