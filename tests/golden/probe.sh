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
base=$root/$machine/'probe'
oneline() { tr '\n' ' '; }
echo "machine=$machine"
echo "user=$(id -un)"
echo "kernel=$(uname -r)"
echo "cpus=$(getconf _NPROCESSORS_ONLN 2> /dev/null || grep -c '^processor' /proc/cpuinfo)"
echo "memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"

# The root is made by the first job: ask the nearest folder that is there.
folder=$root
while ! [ -e "$folder" ]; do folder=${folder%/*} && folder=${folder:-/}; done
printf 'folder=%s\n' "$folder"
if [ -d "$folder" ] && [ -w "$folder" ] && [ -x "$folder" ]; then echo writable=yes; else echo writable=no; fi
echo "disk_free=$(df -Pk "$folder" | sed -n '2p' | tr -s ' ' | cut -d ' ' -f 4)"

for tool in flock sha256sum tar timeout; do
	if ! command -v "$tool" > /dev/null; then echo "missing=$tool"; fi
done
if command -v git > /dev/null; then echo "git=$(git --version 2> /dev/null | cut -d ' ' -f 3)"; fi

set -- 'docker'
if ! command -v "$1" > /dev/null; then
	echo "client=none"
elif client=$("$@" --version 2>&1 < /dev/null); then
	printf 'client=%s\n' "$(printf '%s' "$client" | oneline)"
	if said=$(timeout 20 "$@" ps --quiet 2>&1 < /dev/null); then
		echo answers=yes
		echo "server=$(timeout 20 "$@" version --format '{{.Server.Version}}' 2> /dev/null < /dev/null || :)"
	else
		printf 'refusal=%s\n' "$(printf '%s' "$said" | oneline)"
	fi
else
	printf 'refusal=%s\n' "$(printf '%s' "$client" | oneline)"
fi

if command -v nvidia-smi > /dev/null; then
	timeout 20 nvidia-smi --query-gpu=index,name,memory.total,uuid --format=csv,noheader,nounits 2> /dev/null < /dev/null |
		sed -n 's/^[0-9]/gpu=&/p' || :
fi
}
main
