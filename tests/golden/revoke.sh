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
keys=$HOME/.ssh/authorized_keys
ours=' ''dstack-server-5e12''\(,[a-z]*\)*$'
if [ -f "$keys" ] && ! [ -L "$keys" ] && ! [ -L "$HOME/.ssh" ] && line=$(grep -- "$ours" "$keys"); then
	made=${line##* }
	aside=$(mktemp "$HOME/.ssh/.dstack.XXXXXX")
	grep -v -- "$ours" "$keys" > "$aside" || :
	chmod "$(stat -c %a "$keys")" "$aside"
	case $made in
		*,newline*)
			text=$(cat "$aside")
			printf %s "$text" > "$aside"
			;;
	esac
	mv -f "$aside" "$keys"
	case $made in
		*,file*) if ! [ -s "$keys" ]; then rm -f "$keys"; fi ;;
	esac
	case $made in
		*,dir*) rmdir "$HOME/.ssh" 2> /dev/null || : ;;
	esac
	if [ -f "$keys" ] && grep -q -- "$ours" "$keys"; then
		printf 'key=%s\n' "$keys"
	fi
fi
}
main
