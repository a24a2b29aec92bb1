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
up=$job/upload
lock=$job/upload.lock
seconds='5'
if ! command -v curl > /dev/null; then
	echo 'curl is not installed on this machine, and storage on S3 needs it; install it: apt-get install curl' >&2
	exit 1
fi

spool() {
	for at in "$job" /dev/shm "${TMPDIR:-/tmp}"; do
		left=$(df -Pk "$at" 2> /dev/null | sed -n '2p' | tr -s ' ' | cut -d ' ' -f 4)
		if [ "${left:-0}" -lt 16384 ]; then continue; fi
		if list=$(mktemp -d "$at/dstack-${base##*/}-${job##*/}.XXXXXX" 2> /dev/null); then return; fi
	done
	echo "no disk of this machine has 16 MiB free; free some space on the disk of $job" >&2
	exit 1
}

begin() {
	if [ -h "$up" ]; then rm -rf "$(readlink "$up")"; fi
	rm -rf "$up"
	spool
	ln -s "$list" "$up"
	head -c '3072' | tar -x -f - -C "$up"
	printf '%s' 'main() {
	set -u
	umask 077
	export LC_ALL=C
	trap '\'''\'' HUP
	up=$1
	echo "$$" > "$up/pid"
	at_once='\''8'\''
	pause=1
	: > "$up/done"
	while [ -d "$up" ]; do
		round
		[ -s "$up/left" ] || break
		if only_refusals; then break; fi
		sleep "$pause"
		pause=$((pause < 16 ? pause * 2 : 30))
	done
}

round() {
	before=$(wc -l < "$up/done")
	comm -23 "$up/pieces" "$up/done" > "$up/left"
	rm -f "$up"/share.* "$up"/answers.* "$up"/error.*
	number=0
	while read -r piece; do
		echo "$piece" >> "$up/share.$((number % at_once))"
		number=$((number + 1))
	done < "$up/left"
	for share in "$up"/share.*; do
		send "${share##*.}" &
	done
	wait
	sed -n '\''s/ 200$//p'\'' "$up"/answers.* | sort -u - "$up/done" > "$up/done.new"
	mv "$up/done.new" "$up/done"
	comm -23 "$up/pieces" "$up/done" > "$up/left"
	if [ "$(wc -l < "$up/done")" -gt "$before" ]; then pause=1; fi
}

# One curl sends all whole files of a share over one connection.
send() {
	: > "$up/share.$1.whole"
	: > "$up/answers.$1"
	: > "$up/error.$1"
	while read -r piece; do
		if [ -e "$up/part/$piece" ]; then
			send_part "$piece" >> "$up/answers.$1" 2>> "$up/error.$1"
		else
			echo "$piece" >> "$up/share.$1.whole"
		fi
	done < "$up/share.$1"
	[ -s "$up/share.$1.whole" ] || return 0
	(cd "$up/conf" && xargs cat < "$up/share.$1.whole") | sed 1d > "$up/config.$1"
	curl -q --config "$up/config.$1" < /dev/null >> "$up/answers.$1" 2>> "$up/error.$1"
}

send_part() {
	skip='\'''\'' count='\'''\'' path='\'''\''
	# shellcheck source=/dev/null
	. "$up/part/$1"
	dd if="$path" bs=1048576 skip="$skip" count="$count" 2> /dev/null | curl -q --config "$up/conf/$1"
}

# True if all failures are permanent, like expired URLs.
only_refusals() {
	cat "$up"/answers.* > "$up/answers"
	if grep -v -q -e '\'' 200$'\'' -e '\'' 40[0-7]$'\'' -e '\'' 41[0-9]$'\'' "$up/answers"; then return 1; fi
	grep -q -v '\'' 200$'\'' "$up/answers"
}

main "$@"
' > "$up/work"
	cd "$job"/'sub dir'
	if command -v setsid > /dev/null; then
		setsid sh "$up/work" "$up" > /dev/null 2> "$up/trouble" < /dev/null &
	else
		nohup sh "$up/work" "$up" > /dev/null 2> "$up/trouble" < /dev/null &
	fi
}

# The worker's copy of the lock's descriptor holds the lock until the worker and its curls are gone.
exec 9> "$lock"
if flock -n 9; then
	begin
else
	echo other=yes
fi
exec 9>&-
# Includes S3's answers to the round that is under way.
sent() {
	cat "$up"/answers.* 2> /dev/null | sed -n 's/ 200$//p' | sort -u - "$up/done" 2> /dev/null | sed 's/^/sent=/'
}

# What the last answers were about what is not sent yet.
trouble() {
	cat "$up/error".* "$up/trouble" 2> /dev/null | tail -n 1 | sed 's/^/trouble=/'
}

tries=0
until flock -n "$lock" true; do
	if [ "$tries" -ge "$((seconds * 10))" ]; then
		echo running=yes
		sent
		cat "$up"/answers.* 2> /dev/null | sed -n '/ 200$/!s/^/refused=/p'
		trouble
		exit 0
	fi
	tries=$((tries + 1))
	sleep 0.1
done
echo running=no
if [ -d "$up" ]; then
	sent
	cat "$up"/answers.* | sed -n '/ 200$/!s/^/refused=/p'
	trouble
fi
}
main
