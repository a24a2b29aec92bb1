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

job=$base/'jobs/j1'
if ! [ -d "$job/workflow" ]; then
	echo "the job's folder $job is gone" >&2
	exit 1
fi
mkdir -p "$job/"'sync/0'
as_root "$job" 'busybox' '# Prints what is at a path: present, missing, special, or link if any part of the path is a link.
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

set -u
umask 077
export LC_ALL=C
owner=$(stat -c %u:%g /dstack-job)
cd /dstack-job/'\''sync/0'\'' || exit 1
rm -rf last
rm -rf pins next copies same moving folders
mkdir pins next copies && : > same && : > moving && : > stamp || exit 1
# A file written just now may be written again within the same clock tick.
touch -d "@$(($(date +%s) - 2))" stamp.old || exit 1

take() {
	[ "$(kind "$1")" = present ] || return 0
	case $1 in
		*/*) mkdir -p "/dstack-job/"'\''sync/0'\''"/next/${1%/*}" || exit 1 ;;
	esac
	cp -al "$1" "/dstack-job/"'\''sync/0'\''"/next/$1"
}
(cd ../../workflow/'\''it'\''\'\'''\''s'\'' && take '\''./it'\''\'\'''\''s/out'\'') 2> /dev/null
cp -al next/. pins && find pins -type d -exec chown "$owner" {} + || exit 1

cd next || exit 1
# shellcheck disable=SC2016
if [ -d ../last ]; then
	find . -type f -exec sh -c '\''
		for file; do
			shift
			if [ "$file" -ef "../last/$file" ] && ! [ "$file" -nt ../stamp.last ]; then
				printf "%s\0" "$file" >> ../same
				set -- "$@" "$file"
			fi
		done
		[ "$#" = 0 ] || rm -f "$@"'\'' sh {} +
fi
# Large files are read through the link. Small files, and those that this machine'\''s user may not read, are copied.
find . -type d -exec sh -c '\''cd ../copies && mkdir -p "$@"'\'' sh {} +
# shellcheck disable=SC2016
find . -type f \( -size '\''-16385'\'' -o ! -perm -004 \) -exec sh -c '\''
	for file; do cp -p "$file" "../copies/$file"; done'\'' sh {} + 2> /dev/null
# Files written meanwhile are not complete.
# shellcheck disable=SC2016
find . -type f -newer ../stamp -exec sh -c '\''
	printf "%s\0" "$@" >> ../moving
	rm -f "$@"
	cd ../copies && rm -f "$@"'\'' sh {} +
find . -type f \( -size '\''-16385'\'' -o ! -perm -004 \) -exec rm -f {} +
chown -hR "$owner" ../copies
cp -al ../copies/. . && rm -rf ../copies
find . -type d -exec stat -c '\''%a %n/./'\'' {} + > ../folders
find . -type d -exec chown "$owner" {} + -exec chmod 700 {} +
chown "$owner" ../same ../moving ../folders
' ''
for kind in same moving; do
	printf '%s=%s\n' "$kind" "$(($(wc -c < "$job/"'sync/0'/$kind)))"
	cat "$job/"'sync/0'/$kind
done
tree=$job/'sync/0'/next
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

project='' skipped='-'
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
echo "path=$(kind './it'\''s/out')"
[ "$(kind './it'\''s/out')" != present ] || set -- "$@" './it'\''s/out'
[ "$#" -gt 0 ] || finish

spool
cleanup() { rm -rf "$list"; }
: > "$list/trouble"
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
cat "$job/"'sync/0'/folders > "$list/modes"

# In the order of the names; the reader notices a missing one. Not xargs, because busybox's damages names.
find "$@" -path "$skipped" -prune -o -path "$long" -prune -o ! -type d ! -type l -exec stat -c '%f %s %n' {} + \
	> "$list/stats" 2>> "$list/trouble" || :
if openssl dgst -sha256 -r /dev/null > /dev/null 2>&1; then
	hash='openssl dgst -sha256 -r'
else
	hash=sha256sum
fi
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
