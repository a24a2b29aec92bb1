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
if ! command -v curl > /dev/null; then
	echo 'curl is not installed on this machine, and storage on S3 needs it; install it: apt-get install curl' >&2
	exit 1
fi
mkdir -p "$job"
rm -rf "$job/gathered" "$job/gather"
mkdir -p "$job/gathered" "$job/gather"
gather=$job/gather
cleanup() { rm -rf "$job/gather"; }
head -c '5120' | tar -x -f - -C "$job/gather"
cd "$job/gathered"
fetch() {
	for all in "$gather"/all.*; do
		[ -e "$all" ] || return 0
		(
			share "${all##*.}" || : > "$gather/failed.${all##*.}"
		) &
	done
	wait
	for failed in "$gather"/failed.*; do
		[ ! -e "$failed" ] || { tail -n 1 "$gather/error.${failed##*.}" >&2 && exit 1; }
	done
}

# Fetches a share's files one after the other over one connection. Repeats what broke off, unless the storage refuses it.
share() {
	left=$gather/left.$1
	tries=0 pause=1
	cp "$gather/all.$1" "$left"
	while :; do
		(cd "$gather/conf" && xargs cat < "$left") | sed 1d > "$gather/config.$1"
		if curl -q --config "$gather/config.$1" > "$gather/answers.$1" 2> "$gather/error.$1" < /dev/null; then
			return 0
		fi
		if grep -q '^4' "$gather/answers.$1"; then return 1; fi
		before=$(wc -l < "$left")
		: > "$left"
		# shellcheck source=/dev/null
		. "$gather/share.$1"
		[ -s "$left" ] || return 0
		if [ "$(wc -l < "$left")" -lt "$before" ]; then tries=0 pause=1; fi
		tries=$((tries + 1))
		[ "$tries" -le '5' ] || return 1
		sleep "$pause"
		pause=$((pause * 2))
	done
}

want() {
	[ "$(stat -c %s "$3" 2> /dev/null)" = "$2" ] || echo "$1" >> "$left"
}
umask 022
fetch
if openssl dgst -sha256 -r /dev/null > /dev/null 2>&1; then
	hash='openssl dgst -sha256 -r'
else
	hash=sha256sum
fi
sums() {
	$hash "$@" >> "$job/gather/hashes"
}
: > "$job/gather/hashes"
. "$job/gather/finish"
printf 'hashes=%s\n' "$(($(wc -c < "$job/gather/hashes")))"
cat "$job/gather/hashes"
echo end=
}
main
