#!/bin/sh
main() {
	if [ "${1-}" != bash ] && command -v bash > /dev/null 2>&1; then
		exec bash --posix /.dstack/entry.sh bash
	fi
	dstack_caught=
	trap 'dstack_caught=1; note_term; kill -TERM -1 2> /dev/null' TERM
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
		'' | *[!0-9]*) exit "$dstack_code" ;;
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
	trap 'dstack_stopping=1' TERM
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
	if ! cd /workflow/'sub dir/it'\''s'; then
		printf 'dstack: commands start in the folder that holds .dstack, but the tree has no folder %s\n' 'sub dir/it'\''s'
		exit 125
	fi
	unset OLDPWD
	exec "$dstack_shell" -e /.dstack/script.sh
}

write_log() {
	trap '' TERM INT HUP USR1 USR2
	# shellcheck disable=SC2016
	exec /bin/sh -c 'echo "cat $$" >&3; exec cat >> /.dstack/log'
}

conclude() {
	trap '' TERM INT HUP USR1 USR2
	dstack_code=137 dstack_cat='' dstack_limit='' dstack_told=told
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
