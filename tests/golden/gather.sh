main() {
set -eu
umask 077
export LC_ALL=C
dk() { 'docker' "$@"; }
machine_id() {
	for file in /etc/machine-id /var/lib/dbus/machine-id; do
		id=
		if [ -r "$file" ]; then read -r id < "$file" || :; fi
		case $id in
			'' | *[!0-9a-f]*) ;;
			*) echo "$id" && return ;;
		esac
	done
	uname -n | sha256sum | cut -c 1-32
}
root='~/.dstack-host'
case $root in
	\~/*) root=$HOME/${root#??} ;;
esac
machine=$(machine_id)
if [ "$machine" != '0123456789abcdef0123456789abcdef' ]; then
	echo "machine=$machine"
	exit 94
fi
base=$root/$machine/'5e12'
job=$base/'jobs/j1'
if ! command -v curl > /dev/null; then
	echo 'curl is not installed on this machine, and storage on S3 needs it; install it: apt-get install curl' >&2
	exit 1
fi
mkdir -p "$job"
rm -rf "$job/gathered" "$job/gather"
mkdir -p "$job/gathered" "$job/gather"
trap 'rm -rf "$job/gather"' EXIT
head -c '3072' | tar -x -f - -C "$job/gather"
cd "$job/gathered"
fetch() {
	for config in "$job"/gather/config.*; do
		(
			curl -q --config "$config" > /dev/null 2> "$config.error" < /dev/null || echo "$?" > "$config.failed"
		) &
	done
	wait
	for failed in "$job"/gather/*.failed; do
		[ ! -e "$failed" ] || { tail -n 1 "${failed%.failed}.error" >&2 && exit 1; }
	done
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
