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
job=$base/'jobs/j1'
io=$job/io
name='dstack-j1'
origin() {
	boot=
	if [ -r '/proc/sys/kernel/random/boot_id' ]; then read -r boot < '/proc/sys/kernel/random/boot_id' || :; fi
	echo "boot=$boot"
	echo "docker=$(daemons)"
}
daemons() {
	space=
	cat '/proc'/[0-9]*/stat 2> /dev/null | sed -n 's/^\([0-9]*\) (dockerd) .*/\1/p' | while read -r pid; do
		if grep -q '^NSpid:.*[0-9][[:space:]][[:space:]]*[0-9]' '/proc'/"$pid"/status 2> /dev/null; then continue; fi
		began=$(cut -d ' ' -f 22 '/proc'/"$pid"/stat 2> /dev/null) || continue
		printf '%s%s' "$space" "$pid:$began"
		space=' '
	done
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

# The exit file counts only once its newline is there. The container may have put anything in its place, and may replace
# it at any time: look at it only where the container can't reach it.
ended() {
	code=
	if [ -L "$job/exit" ] || { [ -e "$job/exit" ] && ! [ -f "$job/exit" ]; }; then rm -rf "$job/exit"; fi
	if ! [ -e "$job/exit" ] && [ -f "$io/exit" ]; then mv "$io/exit" "$job/exit" 2> /dev/null || :; fi
	if [ -f "$job/exit" ] && ! [ -L "$job/exit" ]; then
		read -r code < "$job/exit" || code=
		case $code in
			*[!0-9]* | ????*) code= ;;
		esac
	fi
	echo "$code"
}
inspect() {
	# For a container that does not exist it prints an empty line, and fails.
	if state=$(timeout 20 'docker' inspect --type container --format '{{json .State}}' "$name" < /dev/null 2> /dev/null); then
		printf '%s\n' "$state"
		return
	fi
	words=$(timeout 20 'docker' ps --all --quiet --filter "name=^$name\$" 2>&1 < /dev/null) || {
		printf 'silent\nsilence=%s\n' "$(printf '%s' "$words" | tr '\n' ' ')"
		return
	}
	if [ -z "$words" ]; then
		echo none
	else
		printf 'silent\nsilence=it lists the container, but does not report its state\n'
	fi
}

code=$(ended)
# If the job failed, ask Docker whether memory ran out.
if [ "$code" = 0 ]; then container=none; else container=$(inspect); fi
printf 'container=%s\n' "$container"
if [ -d "$io" ]; then echo "claim=$(claim)"; else echo claim=gone; fi
origin
log=$job/log
# Jobs that an older dstack launched lack it. ln never follows a link, so it takes nothing but what the job has there.
if ! [ -e "$log" ]; then ln "$job/io/log" "$log" 2> /dev/null || :; fi
if [ -L "$log" ] || { [ -e "$log" ] && ! [ -f "$log" ]; }; then rm -f "$log"; fi
size=0
if [ -f "$log" ]; then size=$(wc -c < "$log"); fi
echo "log_size=$size"
disk() {
	if free=$(df -Pk "$2" 2> /dev/null); then echo "$1=$(printf '%s\n' "$free" | sed -n '2p' | tr -s ' ' | cut -d ' ' -f 4)"; fi
}
disk disk_free "$io"
if [ -n "$code" ] && [ "$code" != 0 ]; then
	# This disk holds what the job wrote outside its tree.
	data=$(timeout 20 'docker' info --format '{{.DockerRootDir}}' 2> /dev/null < /dev/null || :)
	if [ -n "$data" ]; then disk docker_disk_free "$data"; fi
fi
echo "exit=$(ended)"
}
main
