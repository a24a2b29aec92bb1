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
io=$job/io
image='busybox'
name='dstack-j1'
outcome=
now() {
	boot='' up=''
	if [ -r '/proc/sys/kernel/random/boot_id' ]; then read -r boot < '/proc/sys/kernel/random/boot_id' || :; fi
	if [ -r '/proc'/uptime ]; then read -r up _ < '/proc'/uptime || :; fi
}
origin() {
	now
	printf 'boot=%s\nuptime=%s\n' "$boot" "$up"
	ours='7:100'
	# shellcheck disable=SC2041 # often there is one
	for daemon in '7:100'; do
		if ! runs "${daemon%:*}" "${daemon#*:}"; then
			daemons
			break
		fi
	done
	echo "docker=${ours# }"
}
runs() {
	read -r stat 2> /dev/null < '/proc'/"$1"/stat || return
	# shellcheck disable=SC2086 # the fields are words
	set -- "$2" ${stat##*) }
	[ "$1" = "${21}" ]
}
daemons() {
	socket=''
	socket=${socket:-${DOCKER_HOST:-unix:///var/run/docker.sock}}
	socket=${socket#unix://}
	socket=${socket#/var}
	named='' unnamed=''
	pids=$(cat '/proc'/[0-9]*/stat 2> /dev/null | sed -n 's/^\([0-9]*\) (dockerd) .*/\1/p')
	for pid in $pids; do
		if grep -q '^NSpid:.*[0-9][[:space:]][[:space:]]*[0-9]' '/proc'/"$pid"/status 2> /dev/null; then continue; fi
		began=$(cut -d ' ' -f 22 '/proc'/"$pid"/stat 2> /dev/null) || continue
		case $(tr '\0' ' ' 2> /dev/null < '/proc'/"$pid"/cmdline) in
			*"unix://$socket "* | *"unix:///var$socket "*) named="$named $pid:$began" ;;
			*fd://*) unnamed="$unnamed $pid:$began" ;;
			*unix://*) ;;
			*) unnamed="$unnamed $pid:$began" ;;
		esac
	done
	ours=${named:-$unnamed}
}
claim() {
	if [ -d "$io/started" ] && ! [ -L "$io/started" ]; then
		claim=fenced
	elif [ -e "$io/started" ] || [ -L "$io/started" ]; then
		claim=claimed
	else
		claim=none
	fi
}
state() {
	id=$(timeout 20 'docker' ps --all --quiet --filter "name=^$name\$" < /dev/null) || return
	if [ -n "$id" ]; then
		timeout 20 'docker' inspect --type container --format '{{.State.Status}}' "$id" < /dev/null || {
			id=$(timeout 20 'docker' ps --all --quiet --filter "name=^$name\$" < /dev/null) && [ -z "$id" ]
		}
	fi
}
over() { [ -e "$job/exit" ] || [ -e "$job/io/exit" ]; }
until_reader_leaves() {
	trap 'kill "$!" 2> /dev/null; exit 0' TERM
	cat <&3 > /dev/null &
	wait "$!" || :
	kill "$tail" 2> /dev/null || :
}
until_job_ends() {
	trap 'kill "$!" 2> /dev/null; exit 0' TERM
	while :; do
		'docker' wait "$name" > /dev/null 2>&1 < /dev/null &
		wait "$!" || :
		if over || ! [ -d "$job" ]; then break; fi
		state > "$job/state.$$" &
		if wait "$!"; then
			read -r found < "$job/state.$$" || found=
			case $found in
				running | created | restarting | paused | stopping) ;;
				*) break ;;
			esac
		fi
		sleep 1 &
		wait "$!" || :
	done
	kill "$tail" 2> /dev/null || :
}

follow_log() {
	if over; then exec tail -c "+$1" "$log"; fi
	tail -c "+$1" -f "$log" < /dev/null 3<&- &
	tail=$!
	until_reader_leaves > /dev/null 2>&1 &
	reader=$!
	until_job_ends > /dev/null 2>&1 3<&- &
	waiter=$!
	wait "$tail" || :
	kill "$reader" "$waiter" 2> /dev/null || :
	wait "$reader" "$waiter" || :
	rm -f "$job/state.$$"
}

answer() {
	outcome=$1
	echo "outcome=$1"
	while read -r line; do echo "$line"; done < "$job/origin"
	digest=
	[ ! -e "$job/image" ] || read -r digest < "$job/image" || :
	echo "digest=$digest"
}

removed() {
	case $1 in
		created | configured | initialized) dk rm --force "$name" > /dev/null ;;
		*)
			rm -rf "$job"
			echo outcome=exists
			origin
			exit 0
			;;
	esac
}

earlier() {
	found=$(state)
	[ -n "$found" ] || return 0
	label=$(dk inspect --type container --format '{{index .Config.Labels "dstack.folder"}}' "$name")
	if [ "${label:-older}" != "$born" ]; then
		removed "$found"
		return
	fi
	case $found in
		created | configured | initialized) begin start "$name" ;;
		running | paused | restarting | stopping) answer exists ;;
		*) dk rm --force "$name" > /dev/null ;;
	esac
}

return_if_begun() {
	claim
	case $claim in
		fenced) echo outcome=fenced && exit 0 ;;
		claimed) answer exists && exit 0 ;;
	esac
	if ! [ -s "$job/born" ]; then
		now
		born=$boot/$up
		[ ! -e "$io/entry.sh" ] || born=older
		echo "$born" > "$job/born"
	fi
	read -r born < "$job/born"
	if [ -e "$job/origin" ]; then earlier; fi
}

look_at_image() {
	{
		# shellcheck disable=SC2024 # the file is this user's
		'docker' image inspect --format \
			'{{if .RepoDigests}}{{index .RepoDigests 0}}{{else}}{{.Id}}{{end}}{{println}}{{println .Config.User}}{{range $path, $_ := .Config.Volumes}}{{println $path}}{{end}}' \
			"$image" > "$job/image" 2> /dev/null 3<&-
	} &
	looking=$!
}
know_image() {
	if ! wait "$looking"; then
		dk ps --quiet > /dev/null
		echo need=image
		exit 0
	fi
	user='0'
}

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

cleaned() (
	set -f
	IFS=/
	path=
	for part in $1; do
		case $part in
			'' | .) ;;
			..) path=${path%/*} ;;
			*) path=$path/$part ;;
		esac
	done
	printf '%s\n' "$path"
)
refuse_volume() {
	echo "the image $image has a volume at $1, $2, so what the job writes there would be lost; $3 or choose another image" >&2
	exit 2
}
own_folder() {
	case $1 in
		*[,\"]*) refuse_volume "/workflow/$1" 'a path with a comma or a quote, where nothing can be mounted' "rename that folder" ;;
	esac
	case $(cd "$job/workflow" && kind "$1") in
		present) ;;
		missing) (umask 022 && mkdir -p "$job/workflow/$1") ;;
		*) refuse_volume "/workflow/$1" 'where the project has a link or a special file' "remove that" ;;
	esac
}

write_files() {
	printf '%s' '#!/bin/sh
main() {
	if [ "${1-}" != bash ] && command -v bash > /dev/null 2>&1; then
		exec bash --posix /.dstack/entry.sh bash
	fi
	dstack_caught=
	trap '\''dstack_caught=1; note_term; kill -TERM -1 2> /dev/null'\'' TERM
	for dstack_signal in INT HUP USR1 USR2; do
		# shellcheck disable=SC2064
		trap "dstack_caught=1; kill -$dstack_signal -1 2> /dev/null" "$dstack_signal"
	done

	if ! (set -C && : > /.dstack/started) 2> /dev/null; then
		if [ -e /.dstack/started ]; then exit 0; else exit 125; fi
	fi
	dstack_shell=$(command -v bash || command -v sh || echo /bin/sh)
	own_repositories

	{
		trap : TERM INT HUP USR1 USR2
		run 2> /dev/null | write_log
	} 3>&1 | conclude &
	dstack_job=$!
	while :; do
		dstack_caught=
		dstack_code=0
		wait "$dstack_job" || dstack_code=$?
		if [ -z "$dstack_caught" ] || ! kill -0 "$dstack_job" 2> /dev/null; then break; fi
	done
	if ! [ -e /.dstack/exit ]; then record "$dstack_code" told; fi
	dstack_recorded=
	read -r dstack_recorded _ < /.dstack/exit || :
	case $dstack_recorded in
		'\'''\'' | *[!0-9]*) exit "$dstack_code" ;;
	esac
	exit "$dstack_recorded"
}

note_term() {
	[ -e /.dstack/term ] || {
		dstack_up=0
		read -r dstack_up _ < /proc/uptime || :
		echo "$dstack_up" > /.dstack/term
	}
} 2> /dev/null

own_repositories() {
	if [ "$(id -u 2> /dev/null)" != 0 ] || ! command -v chown > /dev/null 2>&1; then return; fi
	chown 0:0 /workflow /workflow/.git 2> /dev/null
	if ! [ -e /.dstack/nested ]; then return; fi
	while IFS= read -r dstack_path; do
		chown -h 0:0 "/workflow/$dstack_path" "/workflow/$dstack_path/.git" 2> /dev/null
	done < /.dstack/nested
}

run() {
	dstack_stopping=
	trap '\''dstack_stopping=1'\'' TERM
	trap : INT HUP USR1 USR2
	dstack_code=0
	(script 2>&1) || dstack_code=$?
	echo "code $dstack_code $dstack_stopping" >&3
}

script() {
	exec 3>&-
	trap - INT QUIT
	. /.dstack/env
	true > /.dstack/env
	if ! cd /workflow/'\'''\''; then
		printf '\''dstack: commands start in the folder that holds .dstack, but the tree has no folder %s\n'\'' '\'''\''
		exit 125
	fi
	unset OLDPWD
	exec "$dstack_shell" -e /.dstack/script.sh
}

write_log() {
	trap '\'''\'' TERM INT HUP USR1 USR2
	# shellcheck disable=SC2016
	exec /bin/sh -c '\''echo "cat $$" >&3; exec cat >> /.dstack/log'\''
}

conclude() {
	trap '\'''\'' TERM INT HUP USR1 USR2
	dstack_code=137 dstack_cat='\'''\'' dstack_limit='\'''\'' dstack_told=told
	while read -r dstack_what dstack_value dstack_stopping; do
		case $dstack_what in
			cat) dstack_cat=$dstack_value ;;
			code) dstack_code=$dstack_value dstack_limit=${dstack_stopping:-10} dstack_told=$dstack_stopping ;;
		esac
		if [ -n "$dstack_cat" ] && [ "$dstack_limit" = 10 ]; then cut_off & fi
	done
	record "$dstack_code" "$dstack_told"
	exit "$dstack_code"
}

cut_off() {
	trap - TERM
	command -v sleep > /dev/null 2>&1 || exit 0
	sleep 10 > /dev/null 2>&1
	kill -KILL "$dstack_cat"
}

record() {
	umask 022
	dstack_when=
	if [ -n "$2" ] && [ -e /.dstack/term ]; then read -r dstack_when < /.dstack/term || :; fi
	if command -v chown > /dev/null 2>&1 && [ "$(id -u 2> /dev/null || echo 0)" = 0 ]; then
		chown -hR "$(owner)" /workflow /.dstack/log 2> /dev/null
	fi
	echo "$1 $dstack_when" 2> /dev/null > /.dstack/exit
}

owner() {
	stat -c %u:%g /.dstack 2> /dev/null && return
	read -r _ _ dstack_user dstack_group _ << END
$(ls -nd /.dstack)
END
	echo "$dstack_user:$dstack_group"
}

main "$@"
exit
' > "$io/entry.sh"
	printf '%s' 'echo hello
' > "$io/script.sh"
	printf '%s' 'export NAME='\''it'\''\'\'''\''s'\''
unset GONE
' > "$io/env"
	: >> "$io/log"
	[ -e "$job/log" ] || ln "$io/log" "$job/log"
	[ -e "$job/ballast" ] || printf '%1048576s' '' 2> /dev/null > "$job/ballast" || :
}

begin() {
	origin > "$job/origin"
	status=0
	dk "$@" > /dev/null 2> "$job/error" || status=$?
	claim
	if [ "$status" != 0 ] && [ "$claim" = none ]; then
		refused "$1"
		return
	fi
	started
}
started() {
	if [ "$claim" = fenced ]; then
		dk rm --force "$name" > /dev/null 2>&1 || :
		echo outcome=fenced
		exit 0
	fi
	answer started
}
refused() {
	error=$(cat "$job/error")
	case $error in
		*'already in use'*)
			earlier
			return
			;;
	esac
	dk rm "$name" > /dev/null 2>&1 || :
	if [ -n "$(state)" ]; then
		started
		return
	fi
	if [ "$1" = start ]; then return; fi
	give_up
}
give_up() {
	rm -f "$io/env"
	printf '%s\n' "$error" >&2
	exit "$status"
}

quiet_git() {
set -f
for word in $(export -p); do
	case ${word%%=*} in
		*[!A-Za-z0-9_]*) ;;
		GIT_*) unset "${word%%=*}" ;;
	esac
done
set +f
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1
export GIT_TERMINAL_PROMPT=0 HOME=/nonexistent XDG_CONFIG_HOME=/nonexistent
umask 022
raw='* -text -filter -ident -eol !working-tree-encoding'
mirror="$base/mirrors/"'r'.git
tree='7777777777777777777777777777777777777777'
commit=''
objects="${commit:+$commit }$tree"
format='[core]
	repositoryformatversion = 0
'
git() {
	command git -c safe.directory='*' -c core.autocrlf=false -c core.protectNTFS=false -c core.protectHFS=false "$@"
}
put() { printf '%s' "$2" > "$1.new" && mv -f "$1.new" "$1"; }
# shellcheck disable=SC2086 # the ids are words
listed() {
	git rev-list --objects --no-walk "$@" $objects
}
whole() {
	listed --quiet
}
readable() {
	listed | git pack-objects --stdout -q --window=0 --no-reuse-object --compression=0 > /dev/null
}
}

launch() {
	exec 3<&0 < /dev/null
	return_if_begun
	if [ -n "$outcome" ]; then return; fi
	look_at_image
checkout() (
	quiet_git
	small_git() {
		mkdir -p "$GIT_DIR/objects/info" "$GIT_DIR/objects/pack" "$GIT_DIR/refs/heads" "$GIT_DIR/info" &&
			printf '%s' "$format	filemode = true
	bare = false
	abbrev = 7
" > "$GIT_DIR/config" &&
			echo "$raw" > "$GIT_DIR/info/attributes" &&
			echo 'ref: refs/heads/main' > "$GIT_DIR/HEAD"
	}
	lend() {
		echo /.dstack/objects > "$GIT_DIR/objects/info/alternates"
	}
	refuse() {
		export GIT_DIR="$mirror"
		if whole && readable; then exit 1; fi
		: > "$mirror/damaged"
		exit 3
	}
	take_spare() {
		[ -d "$spare" ] && mv "$spare" "$job/spare" 2> /dev/null && mv "$job/spare/tree" "$job/workflow" &&
			small_git && mv "$job/spare/index" "$GIT_DIR/index" && rmdir "$job/spare"
	}
	write_files_of_tree() { git -c checkout.workers=4 read-tree --reset -u "$tree"; }
	clear_tree() {
		if ! [ -e "$job/workflow" ] && ! [ -e "$job/spare" ]; then return; fi
		rm -rf "$job/workflow" "$job/spare" "$io/nested"
	}
	known="$mirror/refs/dstack"
	spare=$mirror.spare
	[ -s "$known/trees/$tree" ] || exit 3
	[ ! -e "$mirror/damaged" ] || exit 3
	printf '%s\n' 'r' "$tree" > "$job/uses"
	clear_tree || exit 1
	export GIT_DIR="$job/workflow/.git" GIT_WORK_TREE="$job/workflow" GIT_OBJECT_DIRECTORY="$mirror/objects"
	if ! { take_spare && write_files_of_tree 2> /dev/null; }; then
		clear_tree && small_git || exit 1
		write_files_of_tree || refuse
	fi
	if [ "$(wc -c < "$GIT_DIR/index")" -gt 80000 ]; then echo spare=wanted; fi
	rm -rf "$GIT_DIR" || exit 1
	echo "$tree" > "$job/tree"
)

# shellcheck disable=SC2012 # the names are ids
newest() { ls -t "$base/mirrors/"'r'".git/refs/dstack/$1" 2> /dev/null | head -n 10 | tr '\n' ' '; }

if ! [ -e "$job/tree" ]; then
	status=0
	checkout || status=$?
	if [ "$status" = 3 ]; then
		echo need=code
		if ! [ -e "$base/mirrors/"'r'.git/damaged ]; then
			echo "commits=$(newest commits)"
			echo "trees=$(newest trees)"
			echo "histories=$(newest histories)"
		fi
		exit 0
	elif [ "$status" != 0 ]; then
		exit 1
	fi
fi
	know_image
	set --
	exec 4< "$job/image"
	{ read -r _ && read -r _; } <&4
	while read -r volume <&4; do
		[ -n "$volume" ] || continue
		volume=$(cleaned "$volume")
		case $volume in
			/workflow/*)
				volume=${volume#/workflow/}
				own_folder "$volume"
				set -- "$@" --mount "type=bind,source=$job/workflow/$volume,target=/workflow/$volume"
				;;
		esac
	done
	exec 4<&-
	write_files
	while read -r key value _; do
		if [ "$key" = MemTotal: ]; then shm=$((value / 2))k && break; fi
	done < /proc/meminfo
	for _ in 1 2; do
		if [ -n "$outcome" ]; then break; fi
		begin run --detach --name "$name" --label 'dstack.job=j1' --label 'dstack.server=5e12' --label "dstack.folder=$born" \
			--pull never --log-driver none --stop-signal TERM --no-healthcheck --userns host --security-opt label=disable \
			--user "$user" --shm-size "$shm" '--env' 'NVIDIA_VISIBLE_DEVICES=void'  \
			--mount "type=bind,source=$io,target=/.dstack" \
			--mount "type=bind,source=$job/workflow,target=/workflow" \
			"$@" --workdir /workflow --entrypoint /bin/sh "$image" /.dstack/entry.sh
	done
	if [ -z "$outcome" ]; then give_up; fi
	known="$base/"'mirrors/r.git'/refs/dstack
	touch -c "$base/"'mirrors/r.git' "$known/trees/"'7777777777777777777777777777777777777777' || :
}

case $base in
	*[,\"]*) echo "the path $base contains a comma or a quote, which Docker can't mount; choose another --root" >&2 && exit 2 ;;
esac
mkdir -p "$io/objects"
exec 9> "$job/lock"
if ! flock -w '60' 9; then
	for holder in /proc/[0-9]*/fd/*; do
		pid=${holder#/proc/}
		pid=${pid%%/*}
		if [ "$pid" != $$ ] && [ "$(readlink "$holder")" = "$job/lock" ]; then kill "$pid" 2> /dev/null || :; fi
	done
	if ! flock -w '60' 9; then
		echo "another launch of this job goes on, and does not end" >&2
		exit '75'
	fi
fi
launch 9>&-
exec 9>&-
if [ "$outcome" = started ]; then
	log=$job/log
	echo
	follow_log 1
fi
}
main
