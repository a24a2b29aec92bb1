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
origin() {
	boot='' up=''
	if [ -r '/proc/sys/kernel/random/boot_id' ]; then read -r boot < '/proc/sys/kernel/random/boot_id' || :; fi
	if [ -r '/proc'/uptime ]; then read -r up _ < '/proc'/uptime || :; fi
	printf 'boot=%s\nuptime=%s\n' "$boot" "$up"
	echo "docker=$(daemons)"
}
# A daemon's command line names its sockets, unless systemd hands it one or it uses the default one.
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
	echo "${ours# }"
}
claim() {
	if [ -d "$io/started" ] && ! [ -L "$io/started" ]; then
		echo fenced
	elif [ -e "$io/started" ] || [ -L "$io/started" ]; then
		echo claimed
	else
		echo none
	fi
}
state() {
	id=$(timeout 20 'docker' ps --all --quiet --filter "name=^$name\$" < /dev/null) || return
	if [ -n "$id" ]; then
		timeout 20 'docker' inspect --type container --format '{{.State.Status}}' "$id" < /dev/null || {
			# A fenced launch may have removed it in the meantime.
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
hand_back='owner=$(stat -c %u:%g /dstack-job) && chown -hR "$owner" /dstack-job &&
	find /dstack-job -type d ! -perm -700 -exec chmod u+rwx {} +'

# Answers with the boot and daemon of the launch itself, also when asked again: the first answer may have been lost.
answer() {
	echo "outcome=$1"
	cat "$job/origin"
	echo "digest=$(dk image inspect --format '{{if .RepoDigests}}{{index .RepoDigests 0}}{{else}}{{.Id}}{{end}}' "$image" || :)"
	exit 0
}

# Somebody removed the job's folder, and with it the sign that its commands began. Its container may have run them, so
# it is not launched again: the server learns next that the folder is gone.
removed() {
	case $1 in
		created | configured | initialized)
			dk rm --force "$name" > /dev/null
			found=
			;;
		*)
			rm -rf "$job"
			echo outcome=exists
			origin
			exit 0
			;;
	esac
}

return_if_begun() {
	case $(claim) in
		fenced) echo outcome=fenced && exit 0 ;;
		claimed) answer exists ;;
	esac
	found=$(state)
	if [ -n "$found" ] && ! [ -e "$io/entry.sh" ]; then removed "$found"; fi
	case $found in
		'') ;;
		created | configured | initialized) begin start "$name" ;;
		running | paused | restarting | stopping) answer exists ;;
		*) dk rm --force "$name" > /dev/null ;;
	esac
}

need_image() {
	if ! dk image inspect "$image" > /dev/null 2>&1; then
		dk ps --quiet > /dev/null
		echo need=image
		exit 0
	fi
	user='image'
	if [ "$user" = image ]; then user=$(dk image inspect --format '{{.Config.User}}' "$image"); fi
	case ${user%%:*} in
		'' | root | 0) user=0 ;;
	esac
}

# Programs refuse a cache of another user (pip does as root), so a cache belongs to the latest job's user. It is open to
# all, because only this machine's user can enter the folders above it.
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
	# Shared until the container is created. Whoever removes caches locks it exclusively, then asks which are in use.
	exec 8>> "$base/caches.lock"
	flock -s 8
	: > "$job/caches"
	open_cache 'caches/r/bf3b04da7be51a75' '/root/.cache/pip' 8>&-
	open_cache 'caches/r/4a81ae77da194882' '/it'\''s' 8>&-
}


# Follows no links: a link in the tree that is in the way of a folder is replaced.
merge() {
	for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
		if [ -e "$entry" ] || [ -L "$entry" ]; then place "$entry" "$2/${entry##*/}"; fi
	done
}
place() {
	if [ -d "$1" ] && ! [ -L "$1" ] && [ -d "$2" ] && ! [ -L "$2" ]; then
		merge "$1" "$2"
	else
		rm -rf "$2"
		mv "$1" "$2"
	fi
}
unpack() {
	if [ -e "$job/given" ]; then
		as_root "$job" "$image" "$hand_back" ''
		rm "$job/given"
	fi
	rm -rf "$job/artifacts"
	(
		umask 022
		mkdir -p "$job/artifacts"
		tar -x -p -f - -C "$job/artifacts" --no-same-owner
		rm "$job/artifacts/"'.dstack/.artifacts-complete'
		rmdir "$job/artifacts/.dstack" 2> /dev/null || :
		mkdir -p "$job/workflow/"'sub dir/it'\''s'
		merge "$job/artifacts" "$job/workflow/"'sub dir/it'\''s'
	)
	rm -rf "$job/artifacts"
}

write_files() {
	mkdir -p "$io/objects"
	printf '%s' '#!/bin/sh
# PID 1 of a job'\''s container. The image has sh and cat, and perhaps nothing else. All code is in functions, so that
# changes to this file have no effect once it runs.
main() {
	# Shells other than bash start background processes with SIGINT ignored, and can'\''t undo that.
	if [ "${1-}" != bash ] && command -v bash > /dev/null 2>&1; then
		exec bash --posix /.dstack/entry.sh bash
	fi
	dstack_caught=
	trap '\''dstack_caught=1; note_term; kill -TERM -1 2> /dev/null'\'' TERM
	for dstack_signal in INT HUP USR1 USR2; do
		# shellcheck disable=SC2064
		trap "dstack_caught=1; kill -$dstack_signal -1 2> /dev/null" "$dstack_signal"
	done

	# At most once: only one process ever creates this file.
	if ! (set -C && : > /.dstack/started) 2> /dev/null; then
		if [ -e /.dstack/started ]; then exit 0; else exit 125; fi
	fi
	dstack_shell=$(command -v bash || command -v sh || echo /bin/sh)
	own_repositories

	# The script'\''s output goes to the log through cat. Descriptor 3 leads to `conclude`; only that cat and these
	# subshells hold it, so when it ends, the log is complete.
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

# Notes when this container was first told to end, in seconds since the machine started. The server knows whether it
# was its own doing.
note_term() {
	[ -e /.dstack/term ] || {
		dstack_up=0
		read -r dstack_up _ < /proc/uptime || :
		echo "$dstack_up" > /.dstack/term
	}
} 2> /dev/null

# git refuses the working tree of another user; before 2.38, even if the environment sets safe.directory. It checks only
# these folders. When the job ends, all files go back to the machine'\''s user.
own_repositories() {
	if [ "$(id -u 2> /dev/null)" != 0 ] || ! command -v chown > /dev/null 2>&1; then return; fi
	chown 0:0 /workflow /workflow/.git 2> /dev/null
	if ! [ -e /.dstack/nested ]; then return; fi
	while IFS= read -r dstack_path; do
		chown -h 0:0 "/workflow/$dstack_path" "/workflow/$dstack_path/.git" 2> /dev/null
	done < /.dstack/nested
}

# Keeps the shell'\''s own messages about killed commands out of the log: only the script'\''s stderr goes there.
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
	# `true`, because `:` would end this shell if the file can'\''t be written.
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

# A process that the script left behind may hold the log open forever. A job that is being stopped has Docker'\''s grace.
cut_off() {
	trap - TERM
	command -v sleep > /dev/null 2>&1 || exit 0
	sleep 10 > /dev/null 2>&1
	kill -KILL "$dstack_cat"
}

# record CODE TOLD: writes the code, and when the container was told to end if that was before the script'\''s end.
record() {
	umask 022
	dstack_when=
	if [ -n "$2" ] && [ -e /.dstack/term ]; then read -r dstack_when < /.dstack/term || :; fi
	if command -v chown > /dev/null 2>&1 && [ "$(id -u 2> /dev/null || echo 0)" = 0 ]; then
		chown -hR "$(owner)" /workflow /.dstack/log 2> /dev/null
	fi
	echo "$1 $dstack_when" 2> /dev/null > /.dstack/exit
}

# Prints the owner of this job'\''s folder on the host, as seen from the container.
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
	# The server reads this link: the container can't replace it.
	[ -e "$job/log" ] || ln "$io/log" "$job/log"
	# Space reserved for collecting the artifacts of a job that filled the disk.
	head -c 1048576 /dev/zero 2> /dev/null > "$job/ballast" || :
	if [ "$user" != 0 ]; then
		# Only its owner can enter the job's folder, so these modes open the files to the container alone.
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
	error=$(dk "$@" 2>&1 > /dev/null) && status=0 || status=$?
	if [ "$status" != 0 ] && [ "$(claim)" = none ]; then
		# Without --force, so that a container that does run stays.
		dk rm "$name" > /dev/null 2>&1 || :
		if [ -z "$(state)" ]; then
			# What a Docker that was killed left of a container can't always be started: a new one can.
			if [ "$1" = start ]; then return; fi
			rm -f "$io/env"
			printf '%s\n' "$error" >&2
			exit "$status"
		fi
	fi
	if [ "$(claim)" = fenced ]; then
		# This launch lost its claim; a stop may already be removing the container.
		dk rm --force "$name" > /dev/null 2>&1 || :
		echo outcome=fenced
		exit 0
	fi
	answer started
}

quiet_git() {
for name in $(env | sed -n 's/^\(GIT_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$name"; done
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

# Takes the pack that comes first on stdin. If that fails, the checkout answers what it needs.
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
	# Only the lock's holder writes here: this was left by a script that was killed.
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

# Damaged objects in the mirror don't matter to a pack that needs none of them.
index_alone() {
	GIT_OBJECT_DIRECTORY="$mirror/in" index_pack || return 1
	for part in "$mirror"/in/pack/*.pack "$mirror"/in/pack/*.idx "$mirror"/in/pack/*.rev; do
		if [ -e "$part" ]; then mv -f "$part" "$mirror/objects/pack/"; fi
	done
}

# Unreadable packs would hide new copies of their objects. Refs that lack objects go, too: no pack may build on them.
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

# Keeps what the newest snapshots and the jobs on this host need. Objects that a job has open stay readable.
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
	# A commit whose parents have arrived since is no longer an end of history.
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

# Removes repositories that were not used for a month and that no job here uses.
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
	dd ibs=1 obs=65536 count='6' > "$job/pack" 2> /dev/null <&3
	return_if_begun
	if [ "$(take_code < "$job/pack" || :)" = received=ok ]; then echo received=ok; fi
	rm -f "$job/pack"
	need_image
checkout() (
	quiet_git
index='9999999999999999999999999999999999999999999999999999999999999999'
list() { GIT_DIR=$mirror git ls-tree --name-only "$index:$1"; }
# Whether the part whose entries are in $names has this one.
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

# Works on GIT_DIR and GIT_WORK_TREE, where the index is the commit's.
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
	# Last, because git follows these settings from now on.
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

	# Creates GIT_DIR without objects. HEAD is replaced later.
	small_git() {
		mkdir -p "$GIT_DIR/objects/info" "$GIT_DIR/objects/pack" "$GIT_DIR/refs/heads" "$GIT_DIR/info" &&
			put "$GIT_DIR/config" "$format	filemode = true
	bare = false
	abbrev = 7
" &&
			put "$GIT_DIR/info/attributes" "$raw
" &&
			put "$GIT_DIR/HEAD" 'ref: refs/heads/main
'
	}
	# The mirror's objects are mounted there in the container.
	lend() {
		put "$GIT_DIR/objects/info/alternates" '/.dstack/objects
'
	}
	refuse() {
		export GIT_DIR="$mirror"
		if whole && readable; then exit 1; fi
		: > "$mirror/damaged"
		exit 3
	}
	# Takes the spare checkout, if there is one: git then writes only what differs.
	take_spare() {
		mv "$mirror.spare" "$job/spare" 2> /dev/null && mv "$job/spare/index" "$GIT_DIR/index" &&
			rmdir "$job/workflow" && mv "$job/spare/tree" "$job/workflow"
	}
	write_files_of_tree() { git -c checkout.workers=4 read-tree --reset -u "$tree"; }
	known="$mirror/refs/dstack"
	[ -s "$known/trees/$tree" ] || exit 3
	[ -s "$known/commits/$commit" ] || exit 3
	[ -s "$known/histories/"'full-8888888888888888888888888888888888888888888888888888888888888888' ] || exit 3
	[ -s "$known/trees/"'9999999999999999999999999999999999999999999999999999999999999999' ] || exit 3
	[ ! -e "$mirror/damaged" ] || exit 3
	# For garbage collection: this was used now, and is in use until the job's folder is removed.
	printf '%s\n' 'r' "$tree" "$commit" '9999999999999999999999999999999999999999999999999999999999999999' 'full-8888888888888888888888888888888888888888888888888888888888888888' > "$job/uses"
	touch "$mirror" "$known/trees/$tree" "$known/commits/$commit" || exit 3
	rm -rf "$job/workflow" "$job/git" "$job/spare" "$io/nested" && mkdir -p "$job/workflow" || exit 1
	export GIT_DIR="$job/git" GIT_WORK_TREE="$job/workflow" GIT_OBJECT_DIRECTORY="$mirror/objects"
	small_git || exit 1
	put "$GIT_DIR/HEAD" 'ref: refs/heads/''feature/it'\''s''
' || exit 1
	if ! { take_spare && write_files_of_tree 2> /dev/null; }; then
		rm -rf "$job/workflow" "$GIT_DIR/index" "$GIT_DIR/index.lock" && mkdir "$job/workflow" || exit 1
		write_files_of_tree || refuse
	fi
	rm -rf "$job/spare"
	# A large tree takes long to write: have one ready for the next job.
	if [ "$(wc -c < "$GIT_DIR/index")" -gt 80000 ]; then echo spare=wanted; fi
	git read-tree ${commit:+--reset} "${commit:---empty}" || refuse
	parts=$(list '') || refuse
	numbers=$(echo "$parts" | sed -n '/^[0-9]*$/p')
	case $parts in
		*root*) furnish root || refuse ;;
		*) names= && rm -f "$GIT_DIR/info/attributes" ;;
	esac
	rm -f "$GIT_DIR/packed-refs" && lend &&
		put "$GIT_DIR/packed-refs" "$commit refs/heads/"'feature/it'\''s''
' &&
		mv "$GIT_DIR" "$job/workflow/.git" || exit 1
	for number in $numbers; do
		(within "$number") || refuse
	done
	put "$job/tree" "$tree
"
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
	unpack <&3
	exec 3<&-
	set --
	write_files
	open_caches
	shm='1048576'
	begin run --detach --name "$name" --label 'dstack.job=j2' --label 'dstack.server=5e12' --pull never --log-driver none \
		--stop-signal TERM --no-healthcheck --userns host --security-opt label=disable --user "$user" \
		--shm-size "$shm" '--gpus' '"device=0,3"' '--cpus' '1.5' '--memory' '1073741824' '--memory-swap' '1073741824' \
		--mount "type=bind,source=$io,target=/.dstack" \
		--mount "type=bind,source=$job/workflow,target=/workflow" \
		--mount "type=bind,source=$base/"'caches/r/bf3b04da7be51a75'/data,target='/root/.cache/pip' \
		--mount "type=bind,source=$base/"'caches/r/4a81ae77da194882'/data,target='/it'\''s' \
		--mount "type=bind,source=$base/"'mirrors/r.git'/objects,target=/.dstack/objects,readonly \
		"$@" --workdir /workflow --entrypoint /bin/sh "$image" /.dstack/entry.sh 8>&-
}

case $base in
	*[,\"]*) echo "the path $base contains a comma or a quote, which Docker can't mount; choose another --root" >&2 && exit 2 ;;
esac
mkdir -p "$io"
exec 9> "$job/lock"
if ! flock -w '60' 9; then
	# An earlier launch, whose connection the server has lost, may read from it for hours. This one repeats its steps.
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
# Closed for the programs started here, which may outlive this script; the shell's own copy holds the lock.
launch 9>&-
}
main
