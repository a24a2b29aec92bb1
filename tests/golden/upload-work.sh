main() {
	set -u
	umask 077
	export LC_ALL=C
	trap '' HUP
	up=$1
	echo "$$" > "$up/pid"
	at_once='8'
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
	sed -n 's/ 200$//p' "$up"/answers.* | sort -u - "$up/done" > "$up/done.new"
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
	skip='' count='' path=''
	# shellcheck source=/dev/null
	. "$up/part/$1"
	dd if="$path" bs=1048576 skip="$skip" count="$count" 2> /dev/null | curl -q --config "$up/conf/$1"
}

# True if all failures are permanent, like expired URLs.
only_refusals() {
	cat "$up"/answers.* > "$up/answers"
	if grep -v -q -e ' 200$' -e ' 40[0-7]$' -e ' 41[0-9]$' "$up/answers"; then return 1; fi
	grep -q -v ' 200$' "$up/answers"
}

main "$@"
