main() {
set -eu
umask 077
export LC_ALL=C
folder=$HOME/.ssh
keys=$folder/authorized_keys
made=
for path in "$folder" "$keys"; do
	if [ -L "$path" ]; then
		printf 'link=%s\n' "$path"
		exit 0
	fi
done
if [ -f "$keys" ] && grep -qF 'ssh-ed25519 AAAA' "$keys"; then
	exit 0
fi
if ! [ -d "$folder" ]; then
	mkdir -m 700 "$folder"
	made=$made,dir
fi
aside=$(mktemp "$folder/.dstack.XXXXXX")
if [ -f "$keys" ]; then
	cat "$keys" > "$aside"
	chmod "$(stat -c %a "$keys")" "$aside"
	if [ -n "$(tail -c 1 "$keys")" ]; then
		echo >> "$aside"
		made=$made,newline
	fi
else
	made=$made,file
fi
printf 'restrict,pty %s %s%s\n' 'ssh-ed25519 AAAA' 'dstack-server-5e12' "$made" >> "$aside"
mv -f "$aside" "$keys"
}
main
