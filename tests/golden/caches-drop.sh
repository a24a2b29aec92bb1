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
foreign() {
	[ -n "$(find "$1" ! -user "$(id -u)" -print 2> /dev/null | head -c 1)" ]
}

closed() {
	[ -n "$(find "$1" -type d ! -perm "$2" -print 2> /dev/null | head -c 1)" ]
}

as_root() (
	folder=$1 image=$2 body=$3 word=$4
	set --
	for tools in /bin /usr /lib /lib64; do
		[ ! -d "$tools" ] || set -- "$@" --mount "type=bind,source=$tools,target=$tools,readonly"
	done
	dk run --rm --pull never --network none --log-driver none --userns host --security-opt label=disable \
		--label dstack.server='5e12' --user 0:0 --workdir / \
		--env PATH=/usr/bin:/bin:/usr/sbin:/sbin --env LD_PRELOAD= --env LD_LIBRARY_PATH= \
		--mount "type=bind,source=$folder,target=/dstack-job" "$@" --entrypoint /bin/sh "$image" \
		-c "$body" sh "$word" > /dev/null < /dev/null
)
# shellcheck disable=SC2016
hand_back='owner=$(stat -c %u:%g /dstack-job) && { ! cd /dstack-job/workflow ||
	find . -type d ! -perm -700 -exec stat -c "%a %n/./" {} + >> /dstack-job/closed || :; } 2> /dev/null && chown -hR "$owner" /dstack-job &&
	find /dstack-job -type d ! -perm -700 -exec chmod u+rwx {} +'

hand_back_by_empty_image() (
	empty=$(head -c 10240 /dev/zero | dk import --change LABEL\ dstack.server='5e12' - | tail -n 1) || exit
	status=0
	as_root "$1" "$empty" "$hand_back" '' || status=$?
	dk rmi -f "$empty" > /dev/null
	exit "$status"
)

reclaim() {
	if ! foreign "$1" && ! closed "$1" "${3:--500}"; then return 0; fi
	if [ -z "$2" ] || ! dk image inspect "$2" > /dev/null 2>&1 || ! as_root "$1" "$2" "$hand_back" '' 2> /dev/null; then
		hand_back_by_empty_image "$1" || :
	fi
	if foreign "$1"; then
		echo "files of other users remain in $1" >&2
		exit 1
	fi
}

scrap() {
	if ! rm -rf "$1" 2> /dev/null; then
		reclaim "$1" "$2" -700
		# In case Docker is gone; then nothing of the job runs.
		find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \;
		rm -rf "$1"
	fi
}

[ -d "$base/caches" ] || exit 0
cd "$base"
# A launch holds the lock until its container is created.
exec 8>> caches.lock
if ! flock -w 60 8; then
	echo "a launch has been under way on this machine for a minute" >&2
	exit 75
fi
names=$(dk ps -a --filter label=dstack.server='5e12' --filter status=created --filter status=running \
	--filter status=paused --filter status=restarting --format '{{.Names}}' 8>&-)
used=$(for name in $names; do cat "jobs/${name#dstack-}/caches" 2> /dev/null || :; done)
mkdir -p caches.gone
for folder in 'caches/r/0' 'caches/r/1'; do
	case "
$used
" in
		*"
$folder
"*)
			echo "busy=$folder"
			continue
			;;
	esac
	if [ -d "$folder" ]; then
		mv "$folder" "$(mktemp -d caches.gone/XXXXXX)"
		rmdir "${folder%/*}" 2> /dev/null || :
	fi
	echo "gone=$folder"
done
exec 8>&-
scrap "$base/caches.gone" ''
}
main
