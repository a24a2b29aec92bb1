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
# Prints size, mtime and ctime of all regular files below: they show whether a file was touched since it was hashed.
facts() {
	TZ=UTC0 find "$@" -type f -exec stat -c '%s %y %z %n' {} + | sort
}

job=$base/'jobs/j3'
reflink=
if cp --help 2>&1 | grep -q -e --reflink; then reflink=--reflink=auto; fi
copy() {
	kept=$base/kept/$1
	if ! { cd "$kept/tree" 2> /dev/null && facts . | cmp -s - "$kept/facts"; }; then
		echo "lost=$1"
		cd / && rm -rf "$kept"
		return
	fi
	# shellcheck disable=SC2086
	cp -af $reflink . "$job/gathered"
	echo "copied=$1 $(find . -type f -exec stat -c %s {} + | { files=0 bytes=0; while read -r size; do files=$((files + 1)) bytes=$((bytes + size)); done; echo "$files $bytes"; })"
}
mkdir -p "$job"
rm -rf "$job/gathered"
umask 022
mkdir "$job/gathered"
for source in 'j1' 'j2-3'; do
	copy "$source" < /dev/null
done
cd "$job/gathered"
head -c '0' > "$job/links"
# shellcheck source=/dev/null
. "$job/links"
rm "$job/links"
find . -type d -exec chmod 755 {} +
}
main
