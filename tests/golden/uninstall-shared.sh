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

unspool() {
	# shellcheck disable=SC2086
	rm -rf "/dev/shm/dstack-${base##*/}-"$1.* "${TMPDIR:-/tmp}/dstack-${base##*/}-"$1.* 2> /dev/null || :
}

# Without Docker there are no containers or images to remove.
engine() {
	command -v 'docker' > /dev/null
}

label=label=dstack.server='5e12'
ours() {
	all=$(dk ps -aq --filter "$label")
	for id in $all; do
		# A container that is going may be gone by now.
		sources=$(dk inspect --type container --format '{{range .Mounts}}{{println .Source}}{{end}}' "$id" 2> /dev/null) || continue
		case "
$sources" in
			*"
$base/"*) echo "$id" ;;
		esac
	done
}
# Repeats failed removals: a job's own cleanup may be removing the same container.
clear_containers() {
	tries=0
	containers=$(ours)
	while [ -n "$containers" ]; do
		for container in $containers; do
			error=$(dk rm -f -v "$container" 2>&1) || tries=$((tries + 1))
		done
		if [ $tries -gt 0 ]; then
			if [ $tries -gt 30 ]; then printf '%s\n' "$error" >&2 && exit 1; fi
			sleep 1
		fi
		containers=$(ours)
	done
}
if engine; then
	clear_containers
fi
for job in "$base"/jobs/*/; do
	job=${job%/}
	unspool "${job##*/}"
done
# Wait for trees that are being made (spare.sh.j2), or they would come back.
for lock in "$base"/mirrors/*.spare.lock; do
	if [ -e "$lock" ]; then (exec 8>> "$lock" && flock -w 60 8) || :; fi
done
scrap "$base" ''
if engine; then
	# What was under way when the first were removed may have started another.
	clear_containers
	containers=$(ours)
	for id in $containers; do
		dk inspect --type container --format 'container=''{{.Name}}' "$id" 2> /dev/null || :
	done
fi
# Folders of other servers, and of other machines with the same home, stay.
if rmdir "${base%/*}" 2> /dev/null; then rmdir "${base%/*/*}" 2> /dev/null || :; fi
if [ -e "$base" ]; then
	echo "path=$base"
fi

}
main
