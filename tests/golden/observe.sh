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
name='dstack-j1'
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

# Prints the first line of a file once its newline is there. Opens only a regular file: the container may have put
# anything there.
line() {
	if [ -f "$1" ] && ! [ -L "$1" ]; then head -c 99 "$1" | { read -r words && echo "$words"; }; fi
}
# Sets what the exit file says: the code, and when the container was told to end, unless its commands had ended before.
# The container may replace the file at any time, so it is read where the container can't reach it.
look() {
	if [ -L "$job/exit" ] || { [ -e "$job/exit" ] && ! [ -f "$job/exit" ]; }; then rm -rf "$job/exit"; fi
	told=$(line "$job/exit") || :
	if [ -z "$told" ] && [ -f "$io/exit" ]; then
		mv -f "$io/exit" "$job/exit" 2> /dev/null || :
		told=$(line "$job/exit") || :
	fi
	code=${told%% *}
	case $code in
		'') told=$(line "$io/term") || : ;;
		*[!0-9]* | ????*) code='' told='' && rm -rf "$job/exit" ;;
		*) told=${told#"$code"} ;;
	esac
	told=${told# }
	case $told in
		*[!0-9.]*) told= ;;
	esac
}
inspect() {
	# For a container that does not exist it prints an empty line, and fails.
	if state=$(timeout 10 'docker' inspect --type container --format '{{json .State}}' "$name" < /dev/null 2> /dev/null); then
		printf '%s\n' "$state"
		return
	fi
	words=$(timeout 10 'docker' ps --all --quiet --filter "name=^$name\$" 2>&1 < /dev/null) || {
		[ "$?" != 124 ] || words='it has been asked for 10 seconds'
		printf 'silent\nsilence=%s\n' "$(printf '%s' "$words" | tr '\n' ' ')"
		return
	}
	if [ -z "$words" ]; then
		echo none
	else
		printf 'silent\nsilence=it lists the container, but does not report its state\n'
	fi
}

look
# If the job failed, ask Docker whether memory ran out.
if [ "$code" = 0 ] && [ -z "$told" ]; then container=none; else container=$(inspect); fi
printf 'container=%s\n' "$container"
if [ -d "$io" ]; then claim; else claim=gone; fi
echo "claim=$claim"
origin
log=$job/log
if ! [ -e "$log" ]; then ln "$job/io/log" "$log" 2> /dev/null || :; fi
if [ -L "$log" ] || { [ -e "$log" ] && ! [ -f "$log" ]; }; then rm -f "$log"; fi
if [ -e "$job/stop" ] || [ -e "$job/stop.lock" ]; then echo asked=yes; fi
size=0
if [ -f "$log" ]; then size=$(wc -c < "$log"); fi
echo "log_size=$size"
disk() {
	if free=$(df -Pk "$2" 2> /dev/null); then echo "$1=$(printf '%s\n' "$free" | sed -n '2p' | tr -s ' ' | cut -d ' ' -f 4)"; fi
}
disk disk_free "$io"
if [ -n "$code" ] && [ "$code" != 0 ]; then
	# This disk holds what the job wrote outside its tree.
	data=$(timeout 10 'docker' info --format '{{.DockerRootDir}}' 2> /dev/null < /dev/null || :)
	if [ -n "$data" ]; then disk docker_disk_free "$data"; fi
fi
look
printf 'told=%s\nexit=%s\n' "$told" "$code"
}
main
