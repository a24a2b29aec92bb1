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
job=$base/'jobs/j2-3'
io=$job/io
image='registry:5000/a/b@sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc'
name='dstack-j2-3'
outcome=
now() {
	boot='' up=''
	if [ -r '/proc/sys/kernel/random/boot_id' ]; then read -r boot < '/proc/sys/kernel/random/boot_id' || :; fi
	if [ -r '/proc'/uptime ]; then read -r up _ < '/proc'/uptime || :; fi
}
origin() {
	now
	printf 'boot=%s\nuptime=%s\n' "$boot" "$up"
	daemons
	echo "docker=${ours# }"
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
	{ read -r _ && read -r user; } < "$job/image"
	case ${user%%:*} in
		'' | root | 0) user=0 ;;
	esac
}

# shellcheck disable=SC2016
open_to='chown "$1" /dstack-job/data && chmod -R a+rwX /dstack-job/data'
open_cache() {
	folder=$base/$1
	mkdir -p "$folder/data"
	printf '%s\n' "$1" >> "$job/caches"
	printf '%s' "$2" > "$folder/path"
	touch "$folder/used"
	case $user in
		*[!0-9:]*) whose="$user of $image" ;;
		*) whose=$user ;;
	esac
	if [ "$(cat "$folder/user" 2> /dev/null)" != "$whose" ]; then
		as_root "$folder" "$image" "$open_to" "${user%%:*}"
		printf '%s\n' "$whose" > "$folder/user"
	fi
}
open_caches() {
	exec 8>> "$base/caches.lock"
	flock -s 8
	: > "$job/caches"
	open_cache 'caches/r/bf3b04da7be51a75' '/root/.cache/pip' 8>&-
	open_cache 'caches/r/4a81ae77da194882' '/it'\''s' 8>&-
}


merge() {
	for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		if [ -e "$entry" ] || [ -L "$entry" ]; then place "$entry" "$2/${entry##*/}"; fi
	done
}
place() {
	if [ -d "$1" ] && ! [ -L "$1" ] && [ -d "$2" ] && ! [ -L "$2" ]; then
		merge "$1" "$2"
	else
		closed=
		if ! { [ -w "${2%/*}" ] && [ -x "${2%/*}" ]; }; then
			closed=$(stat -c %a "${2%/*}")
			chmod u+wx "${2%/*}"
		fi
		if [ -d "$2" ] && ! [ -L "$2" ]; then find "$2" -type d ! -perm -700 -exec chmod u+rwx {} \;; fi
		rm -rf "$2"
		mv "$1" "$2"
		if [ -n "$closed" ]; then chmod "0$closed" "${2%/*}"; fi
	fi
}
unpack() {
	if [ -e "$job/given" ]; then
		as_root "$job" "$image" "$hand_back" ''
		rm -f "$job/given" "$job/closed"
	fi
	rm -rf "$job/artifacts"
	(
		umask 022
		mkdir -p "$job/artifacts"
		tar -x -p -f - -C "$job/artifacts" --no-same-owner
		rm "$job/artifacts/"'.dstack/.artifacts-complete'
		rmdir "$job/artifacts/.dstack" 2> /dev/null || :
		mkdir -p "$job/workflow/"'sub dir/it'\''s'
		cd "$job/artifacts"
		mkdir -p './out' './out/it'\''s' './out/it'\''s/closed'
		merge "$job/artifacts" "$job/workflow/"'sub dir/it'\''s'
		cd "$job/workflow/"'sub dir/it'\''s'
		chmod '00000' './out/it'\''s/closed'
		chmod '02770' './out/it'\''s'
		chmod '00755' './out'
	)
	rm -rf "$job/artifacts"
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
	if ! cd /workflow/'\''sub dir/it'\''\'\'''\''s'\''; then
		printf '\''dstack: commands start in the folder that holds .dstack, but the tree has no folder %s\n'\'' '\''sub dir/it'\''\'\'''\''s'\''
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
	printf '%s' 'python train.py '\''a b'\''
' > "$io/script.sh"
	printf '%s' 'export LINES='\''a
b'\''
' > "$io/env"
	: >> "$io/log"
	[ -e "$job/log" ] || ln "$io/log" "$job/log"
	[ -e "$job/ballast" ] || printf '%1048576s' '' 2> /dev/null > "$job/ballast" || :
	if [ "$user" != 0 ]; then
		chmod 0777 "$io"
		chmod 0644 "$io/entry.sh" "$io/script.sh"
		chmod 0666 "$io/env" "$io/log"
		: > "$job/given"
		# shellcheck disable=SC2016
		as_root "$job" "$image" 'chown -hR "$1" /dstack-job/workflow' "${user%%:*}"
	fi
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
tree='7777777777777777777777777777777777777777777777777777777777777777'
commit='8888888888888888888888888888888888888888888888888888888888888888'
objects="${commit:+$commit }$tree"\ '9999999999999999999999999999999999999999999999999999999999999999'
format="[extensions]
	objectformat = "'sha256'"
[core]
	repositoryformatversion = 1
"
git() {
	command git -c safe.directory='*' -c core.autocrlf=false -c core.protectNTFS=false -c core.protectHFS=false "$@"
}
put() { printf '%s' "$2" > "$1.new" && mv -f "$1.new" "$1"; }
# shellcheck disable=SC2086 # the ids are words
listed() {
	GIT_SHALLOW_FILE=$mirror/cuts/'full-8888888888888888888888888888888888888888888888888888888888888888' git rev-list --objects "$@" $objects
}
whole() {
	listed --quiet
}
readable() {
	listed | git pack-objects --stdout -q --window=0 --no-reuse-object --compression=0 > /dev/null
}
}

take_code() (
quiet_git
prepare() {
	mkdir -p "$mirror/objects/pack" "$mirror/objects/info" "$mirror/refs" "$mirror/info" "$mirror/cuts"
	printf %s '' > "$mirror/cuts/"'full-8888888888888888888888888888888888888888888888888888888888888888'
	put "$mirror/config" "$format	bare = true
	hooksPath = /dev/null
[gc]
	auto = 0
"
	put "$mirror/info/attributes" "$raw
"
	rm -rf "$mirror/in" "$mirror"/objects/pack/tmp_*
	find "$mirror/refs" -name '*.lock' -exec rm -f {} +
	put "$mirror/HEAD" 'ref: refs/heads/none
'
	mkdir -p "$mirror/in/pack"
}

index_pack() {
	git index-pack --stdin --fix-thin > /dev/null 2> "$mirror/in/error" && return
	if grep -q -e 'No space left' -e 'Permission denied' -e 'Read-only' -e 'quota' "$mirror/in/error"; then
		cat "$mirror/in/error" >&2
		exit 1
	fi
	return 1
}

index_alone() {
	GIT_OBJECT_DIRECTORY="$mirror/in" index_pack || return 1
	for part in "$mirror"/in/pack/*.pack "$mirror"/in/pack/*.idx "$mirror"/in/pack/*.rev; do
		if [ -e "$part" ]; then mv -f "$part" "$mirror/objects/pack/"; fi
	done
}

drop_damaged() {
	for pack in "$mirror"/objects/pack/*.pack; do
		if ! git verify-pack "$pack"; then rm -f "${pack%.pack}".*; fi
	done
	for ref in "$mirror"/refs/dstack/*/*; do
		if ! read -r oid < "$ref" || ! git rev-list --objects --quiet "$oid"; then rm -f "$ref"; fi
	done
}

take_in() {
	if [ -e "$mirror/damaged" ]; then
		drop_damaged
		index_alone && whole && readable
	elif ! [ -d "$mirror/refs/dstack" ]; then
		index_alone && whole
	else
		cat > "$mirror/in/received"
		{ index_pack < "$mirror/in/received" || index_alone < "$mirror/in/received"; } && whole
	fi
}

cut_history() {
	touch "$mirror/shallow"
	printf %s '' | sort -u - "$mirror/shallow" > "$mirror/shallow.new" && mv -f "$mirror/shallow.new" "$mirror/shallow"
}

name() {
	{
		echo "update refs/dstack/trees/$tree $tree"
		echo "update refs/dstack/trees/"'9999999999999999999999999999999999999999999999999999999999999999'" "'9999999999999999999999999999999999999999999999999999999999999999'
		if [ -n "$commit" ]; then echo "update refs/dstack/commits/$commit $commit"; fi
		echo "update refs/dstack/histories/"'full-8888888888888888888888888888888888888888888888888888888888888888'" $commit"
	} | git update-ref --stdin
}

collect() {
	keep=$(for kind in commits trees histories; do
		# shellcheck disable=SC2012 # the names are ids
		ls -t "$mirror/refs/dstack/$kind" 2> /dev/null | head -n 40
	done; cat "$base"/jobs/*/uses 2> /dev/null || :)
	for ref in "$mirror"/refs/dstack/*/*; do
		case "
$keep
" in
			*"
${ref##*/}
"*) ;;
			*) rm -f "$ref" "$mirror/cuts/${ref##*/}" ;;
		esac
	done
	while read -r end; do
		all=
		for parent in $(git cat-file commit "$end" 2> /dev/null | sed -n '/^$/q;s/^parent //p'); do
			all=1
			if ! git cat-file -e "$parent" 2> /dev/null; then all='' && break; fi
		done
		if [ -z "$all" ]; then echo "$end"; fi
	done < "$mirror/shallow" > "$mirror/shallow.new"
	mv -f "$mirror/shallow.new" "$mirror/shallow"
	git repack -a -d -q -l > /dev/null 2>&1
}

forget_old() {
	find "$base/mirrors" -maxdepth 1 -name '*.git' -mtime +30 | while read -r old; do
		name=${old##*/}
		if grep -qsx "${name%.git}" "$base"/jobs/*/uses; then continue; fi
		(
			exec 8>> "${old%.git}.git.lock"
			if flock -n 8; then rm -rf "$old" "$old".[ms]*; fi
		)
	done
}

mkdir -p "$base/mirrors"
exec 9>> "$mirror.lock"
flock 9
export GIT_DIR="$mirror"
prepare
if take_in 2> "$mirror/damage"; then
	cut_history
	name || { (cd "$mirror/refs/dstack" && for oid in $objects; do rm -f "trees/$oid" "commits/$oid"; done) && name; }
	rm -f "$mirror/damaged" "$mirror/damage"
	set -- "$mirror"/objects/pack/*.pack
	if [ "$#" -gt 50 ]; then collect || :; fi
	forget_old || :
	echo received=ok
else
	cat "$mirror/damage" >&2
	echo need=full
fi
rm -rf "$mirror/in"
)

launch() {
	exec 3<&0 < /dev/null
	dd bs='6' count=1 iflag=fullblock > "$job/pack" 2> /dev/null <&3
	return_if_begun
	if [ -n "$outcome" ]; then return; fi
	look_at_image
	if [ "$(take_code < "$job/pack" || :)" = received=ok ]; then echo received=ok; fi
	rm -f "$job/pack"
checkout() (
	quiet_git
index='9999999999999999999999999999999999999999999999999999999999999999'
list() { GIT_DIR=$mirror git ls-tree --name-only "$index:$1"; }
has() {
	case "
$names
" in
		*"
$1
"*) ;;
		*) return 1 ;;
	esac
}
give() { GIT_DIR=$mirror git cat-file blob "$index:$part/$1"; }

furnish() {
	part=$1
	names=$(list "$part") || return
	if has changes; then give changes | git update-index -z --index-info || return; fi
	if has assumed; then give assumed | git update-index -z --assume-unchanged --stdin || return; fi
	if has skipped; then give skipped | git update-index -z --skip-worktree --stdin || return; fi
	rm -f "$GIT_DIR/info/attributes"
	if has git; then
		GIT_INDEX_FILE=$job/aside.index GIT_WORK_TREE=$GIT_DIR git read-tree --reset -u "$index:$part/git" &&
			rm "$job/aside.index" || return
	fi
	if has config; then give config >> "$GIT_DIR/config" || return; fi
}

within() {
	part=$1
	names=$(list "$part") || return
	path=$(give path && echo x) && path=${path%x}
	case /$path/ in
		*/../* | */./* | *//*) return 1 ;;
	esac
	GIT_WORK_TREE=$job/workflow/$path
	GIT_DIR=$GIT_WORK_TREE/.git
	if ! [ -d "$GIT_WORK_TREE" ]; then mkdir -p "$GIT_WORK_TREE" || return; fi
	small_git || return
	if has commit; then
		commit=$(give commit | GIT_OBJECT_DIRECTORY=$GIT_DIR/objects git hash-object -t commit -w --stdin) || return
		put "$GIT_DIR/shallow" "$commit
" || return
	else
		commit=
	fi
	if has branch; then
		branch=$(give branch) &&
			put "$GIT_DIR/HEAD" "ref: refs/heads/$branch
" && { [ -z "$commit" ] || put "$GIT_DIR/packed-refs" "$commit refs/heads/$branch
"; } || return
	elif [ -n "$commit" ]; then
		put "$GIT_DIR/HEAD" "$commit
" || return
	fi
	git read-tree --reset "$index:$part-head" && furnish "$part" && lend && printf '%s\n' "$path" >> "$io/nested"
}

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
	[ -s "$known/commits/$commit" ] || exit 3
	[ -s "$known/histories/"'full-8888888888888888888888888888888888888888888888888888888888888888' ] || exit 3
	[ -s "$known/trees/"'9999999999999999999999999999999999999999999999999999999999999999' ] || exit 3
	[ ! -e "$mirror/damaged" ] || exit 3
	printf '%s\n' 'r' "$tree" "$commit" '9999999999999999999999999999999999999999999999999999999999999999' 'full-8888888888888888888888888888888888888888888888888888888888888888' > "$job/uses"
	clear_tree || exit 1
	export GIT_DIR="$job/workflow/.git" GIT_WORK_TREE="$job/workflow" GIT_OBJECT_DIRECTORY="$mirror/objects"
	if ! { take_spare && write_files_of_tree 2> /dev/null; }; then
		clear_tree && small_git || exit 1
		write_files_of_tree || refuse
	fi
	if [ "$(wc -c < "$GIT_DIR/index")" -gt 80000 ]; then echo spare=wanted; fi
	echo 'ref: refs/heads/''feature/it'\''s' > "$GIT_DIR/HEAD" || exit 1
	git read-tree ${commit:+--reset} "${commit:---empty}" || refuse
	parts=$(list '') || refuse
	numbers=$(echo "$parts" | sed -n '/^[0-9]*$/p')
	case $parts in
		*root*) furnish root || refuse ;;
		*) names='' && : > "$GIT_DIR/info/attributes" ;;
	esac
	rm -f "$GIT_DIR/packed-refs" || exit 1
	lend &&
		echo "$commit refs/heads/"'feature/it'\''s' > "$GIT_DIR/packed-refs" || exit 1
	for number in $numbers; do
		(within "$number") || refuse
	done
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
	unpack <&3
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
	open_caches
	shm='1048576'
	for _ in 1 2; do
		if [ -n "$outcome" ]; then break; fi
		begin run --detach --name "$name" --label 'dstack.job=j2' --label 'dstack.server=5e12' --label "dstack.folder=$born" \
			--pull never --log-driver none --stop-signal TERM --no-healthcheck --userns host --security-opt label=disable \
			--user "$user" --shm-size "$shm" '--gpus' '"device=0,3"' '--cpus' '1.5' '--memory' '1073741824' '--memory-swap' '1073741824' \
			--mount "type=bind,source=$io,target=/.dstack" \
			--mount "type=bind,source=$job/workflow,target=/workflow" \
			--mount "type=bind,source=$base/"'caches/r/bf3b04da7be51a75'/data,target='/root/.cache/pip' \
			--mount "type=bind,source=$base/"'caches/r/4a81ae77da194882'/data,target='/it'\''s' \
			--mount "type=bind,source=$base/"'mirrors/r.git'/objects,target=/.dstack/objects,readonly \
			"$@" --workdir /workflow --entrypoint /bin/sh "$image" /.dstack/entry.sh 8>&-
	done
	if [ -z "$outcome" ]; then give_up; fi
	known="$base/"'mirrors/r.git'/refs/dstack
	touch -c "$base/"'mirrors/r.git' "$known/trees/"'7777777777777777777777777777777777777777777777777777777777777777' "$known/commits/"'8888888888888888888888888888888888888888888888888888888888888888' || :
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
}
main
