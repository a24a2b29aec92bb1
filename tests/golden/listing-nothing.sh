main() {
set -eu
umask 077
export LC_ALL=C
dk() { 'sudo' '-n' 'podman' "$@"; }
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
root='/data/d'\''s'
case $root in
	\~/*) root=$HOME/${root#??} ;;
esac
machine_id
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

job=$base/'jobs/j2-3'
if ! [ -d "$job/workflow" ] && ! [ -d "$job/made" ]; then
	echo gone=yes
	exit 0
fi
# A job records its end shortly before its container stops.
running=$(dk ps -q --filter name='^''dstack-j2-3''$')
[ -z "$running" ] || dk stop -t 10 "$running" > /dev/null

reclaim "$job" 'busybox'
# Enters a folder only at its own path, so that a link put in its place is noticed and never followed.
enter() { cd -P "$1" 2> /dev/null && [ "$PWD" = "$top${at#.}" ]; }

astray() { echo "$at was replaced while it was read, or can't be opened" >> "$job/made.trouble"; }

real() { [ -d "$1" ] && ! [ -h "$1" ]; }

# Starts one program per folder and per hundred files, because starting programs is what costs time here.
take_all() {
	if ! { [ -r . ] && [ -x . ]; }; then chmod u+rwx . || return; fi
	set --
	folders=
	for name in ./* ./.[!.]* ./..?*; do
		if real "$name"; then
			folders=yes
		elif there "$name" && [ "$at/${name#./}" != "$skipped" ]; then
			set -- "$@" "$name"
			if [ "$#" = 100 ]; then
				take "$@" || return
				set --
			fi
		fi
	done
	[ "$#" = 0 ] || take "$@" || return
	[ -n "$folders" ] || return 0
	set --
	for name in ./*/ ./.[!.]*/ ./..?*/; do
		name=${name%/}
		if real "$name" && [ "$at/${name#./}" != "$skipped" ]; then
			set -- "$@" "$new/$at/${name#./}"
			if [ "$#" = 100 ]; then
				mkdir -p "$@" || return
				set --
			fi
		fi
	done
	[ "$#" = 0 ] || mkdir -p "$@" || return
	for name in ./*/ ./.[!.]*/ ./..?*/; do
		name=${name%/}
		if real "$name" && [ -d "$new/$at/${name#./}" ]; then
			at=$at/${name#./}
			# Longer paths are refused.
			if [ "${#at}" -ge '3503' ]; then
				at=${at%/*}
				continue
			fi
			if enter "$name"; then take_all || return; else astray; fi
			at=${at%/*}
			if ! enter "$top${at#.}"; then
				astray
				return 0
			fi
		fi
	done
}

there() { [ -e "$1" ] || [ -h "$1" ]; }

# Files that vanish meanwhile are left out.
take() {
	ln "$@" "$new/$at" 2> /dev/null && return
	for name; do
		if there "$name" && ! there "$new/$at/${name#./}" && ! error=$(ln "$name" "$new/$at" 2>&1); then
			if [ "$(df -Pk "$job" | sed -n '2p' | tr -s ' ' | cut -d ' ' -f 4)" -lt 64 ]; then
				printf '%s\n' "$error" >&2
				return 1
			elif real "$name" || [ "${error%not permitted*}" != "$error" ]; then
				# All files were given to this user: what belongs to another now was put there since.
				(at=$at/${name#./} && astray)
			else
				printf '%s\n' "$error" >> "$job/made.trouble"
			fi
		fi
	done
}

# Takes a path with the folders above it. If one of those is a link, takes only that link.
take_path() (
	rest=$1 at=.
	cd -P "$top" || exit
	while [ -n "$rest" ] && [ "$rest" != . ]; do
		name=${rest%%/*}
		case $rest in
			*/*) rest=${rest#*/} ;;
			*) rest= ;;
		esac
		if ! real "./$name"; then
			if there "./$name"; then take "./$name"; fi
			exit
		fi
		at=$at/$name
		mkdir -p "$new/$at" || exit
		if ! enter "./$name"; then
			astray
			exit 0
		fi
	done
	take_all
)

make() {
	new=$job/made.new
	umask 022
	rm -rf "$new" "$job/ballast"
	: > "$job/made.trouble"
	mkdir "$new"
	chmod u+rwx "$job/workflow"
	top=$(cd -P "$job/workflow" && echo "$PWD")
	skipped='-'
	mkdir -p "$new/"'sub dir'
	[ -s "$job/made.trouble" ] || rm "$job/made.trouble"
	mv "$new" "$job/made"
}

# Links need a little space. A disk may have none, and no reserve of root's either: then the tree itself has to do. Its
# container has ended. Not as part of a condition, where `set -e` has no effect.
if ! [ -d "$job/made" ]; then
	make < /dev/null &
	wait "$!" || {
		rm -rf "$job/made.new" "$job/made.trouble"
		[ -d "$job/made" ] || mv "$job/workflow" "$job/made"
	}
fi

tree=$job/made
# Prints what is at a path: present, missing, special, or link if any part of the path is a link.
kind() (
	rest=$1 at=.
	while :; do
		at=$at/${rest%%/*}
		if [ -h "$at" ]; then
			echo link
			exit
		fi
		case $rest in
			*/*) rest=${rest#*/} ;;
			*) break ;;
		esac
	done
	if [ -d "$at" ] || [ -f "$at" ]; then
		echo present
	elif [ -e "$at" ]; then
		echo special
	else
		echo missing
	fi
)

spool() {
	for at in "$job" /dev/shm "${TMPDIR:-/tmp}"; do
		left=$(df -Pk "$at" 2> /dev/null | sed -n '2p' | tr -s ' ' | cut -d ' ' -f 4)
		if [ "${left:-0}" -lt 16384 ]; then continue; fi
		if list=$(mktemp -d "$at/dstack-${base##*/}-${job##*/}.XXXXXX" 2> /dev/null); then return; fi
	done
	echo "no disk of this machine has 16 MiB free; free some space on the disk of $job" >&2
	exit 1
}

# Prints size, mtime and ctime of all regular files below: they show whether a file was touched since it was hashed.
facts() {
	TZ=UTC0 find "$@" -type f -exec stat -c '%s %y %z %n' {} + | sort
}

section() {
	printf '%s=%s\n' "$1" "$(($(wc -c < "$list/$1")))"
	cat "$list/$1"
}

finish() {
	echo end=
	exit 0
}

pick() {
	expression=$1
	shift
	# The expression comes from this script, and must split into words.
	# shellcheck disable=SC2086
	find "$@" -path "$skipped" -prune -o -path "$long" -prune $expression 2>> "$list/trouble" ||
		echo "find ended with exit status $?" >> "$list/trouble"
}

project='sub dir' skipped='-'
long=$(printf '%''3503''s' '' | tr ' ' '?')'*'
chmod u+rwx "$tree"
cd "$tree"
# Folders too deep to be opened are refused below.
find . -type d ! -perm -700 -exec chmod u+rwx {} \; 2> /dev/null || :
if [ -n "$project" ]; then
	found=$(kind "$project")
	echo "project=$found"
	if [ "$found" != present ] || ! [ -d "$project" ]; then finish; fi
	cd "$project"
fi

set --
[ "$#" -gt 0 ] || finish

spool
cleanup() { rm -rf "$list"; }
cat "$job/made.trouble" 2> /dev/null > "$list/trouble" || :
pick '-o -type f ! -perm -400 -exec chmod u+r {} +' "$@"
pick '-o ! -type d ! -type l -print0' "$@" > "$list/names"
pick '-print0' "$@" > "$list/long"
if find . -prune -printf '' 2> /dev/null; then
	pick '-o -type l -printf %p\0%l\0' "$@" > "$list/links"
else
	find "$@" -path "$skipped" -prune -o -path "$long" -prune -o -type l -exec sh -c '
		for link; do
			printf "%s\\0" "$link"
			readlink -n "$link"
			printf "\\0"
		done' sh {} + > "$list/links" 2>> "$list/trouble" || :
fi

# No path contains the `/./` behind each folder, whatever its name.
find "$@" -path "$skipped" -prune -o -path "$long" -prune -o -type d -exec stat -c '%a %n/./' {} + \
	> "$list/folders" 2>> "$list/trouble" || :
cat "$job/closed" "$job/made.folders" 2> /dev/null > "$list/modes" || :

# In the order of the names; the reader notices a missing one. Not xargs, because busybox's damages names.
find "$@" -path "$skipped" -prune -o -path "$long" -prune -o ! -type d ! -type l -exec stat -c '%f %s %n' {} + \
	> "$list/stats" 2>> "$list/trouble" || :
if openssl dgst -sha256 -r /dev/null > /dev/null 2>&1; then
	hash='openssl dgst -sha256 -r'
else
	hash=sha256sum
fi
# Recorded before the files are hashed, so that later changes show.
facts "$@" > "$job/hashed" 2> /dev/null || rm -f "$job/hashed"
pick "-o -type f -exec $hash {} +" "$@" > "$list/hashes"
section names
section stats
section hashes
section links
section folders
section modes
section long
section trouble
finish
}
main
