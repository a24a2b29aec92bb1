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
# Starting a program costs as much as everything that the shell reads here, so only Docker and the GPU tools are started.
echo "cpus=$(getconf _NPROCESSORS_ONLN 2> /dev/null || grep -c '^processor' /proc/cpuinfo)"
# user nice system idle iowait irq softirq steal, in ticks (proc(5)); guests are counted in user.
read -r _ user nice system idle iowait irq soft steal _ < /proc/stat
echo "cpu=$((user + nice + system + irq + soft + steal)) $((user + nice + system + idle + iowait + irq + soft + steal))"
# Sets $value to the value of a key in a file of `key value` lines.
value_of() {
	value=
	while read -r key value _; do
		if [ "$key" = "$2" ]; then return; fi
	done < "$1"
	value=
}
value_of /proc/meminfo MemTotal:
total=$value
value_of /proc/meminfo MemAvailable:
echo "memory=$total ${value:-0}"

# Prints a job's processor time in microseconds, and its memory without the page cache that the kernel can reclaim.
usage() {
	for at in "docker/$1" "system.slice/docker-$1.scope" "machine.slice/libpod-$1.scope" "libpod_parent/libpod-$1"; do
		if [ -r "/sys/fs/cgroup/$at/cpu.stat" ]; then
			value_of "/sys/fs/cgroup/$at/cpu.stat" usage_usec
			time=$value
			read -r held < "/sys/fs/cgroup/$at/memory.current"
			value_of "/sys/fs/cgroup/$at/memory.stat" inactive_file
		elif [ -r "/sys/fs/cgroup/cpuacct/$at/cpuacct.usage" ]; then
			read -r time < "/sys/fs/cgroup/cpuacct/$at/cpuacct.usage"
			time=$((time / 1000))
			read -r held < "/sys/fs/cgroup/memory/$at/memory.usage_in_bytes"
			value_of "/sys/fs/cgroup/memory/$at/memory.stat" total_inactive_file
		else
			continue
		fi
		echo "job=$2 $time $((held - value))"
		return
	done
}
containers=''
containers=$(dk ps --no-trunc --filter label=dstack.job --format '{{.ID}} {{.Names}}' 2> /dev/null < /dev/null) || containers=
while read -r id name; do
	if [ -n "$id" ]; then
		echo "container=$id $name"
		usage "$id" "$name" 2> /dev/null || :
	fi
done << END
$containers
END

if command -v nvidia-smi > /dev/null; then
	timeout 20 nvidia-smi --query-gpu=index,uuid,utilization.gpu,memory.used,memory.total --format=csv,noheader,nounits 2> /dev/null < /dev/null |
		sed -n 's/^[0-9]/gpu=&/p' || :
	apps=$(timeout 20 nvidia-smi --query-compute-apps=gpu_uuid,pid,used_memory,process_name --format=csv,noheader,nounits 2> /dev/null < /dev/null) || apps=
	while IFS=, read -r uuid pid held name; do
		whose=others
		for id in $(printf '%s\n' "$containers" | cut -d ' ' -f 1); do
			if grep -q "$id" "/proc/${pid# }/cgroup" 2> /dev/null; then whose=dstack; fi
		done
		# A GPU that does not report processes prints [N/A] or [Not Supported].
		case ${pid# } in *[!0-9]* | '') ;; *) printf 'app=%s\n' "$uuid,$pid,$held,$whose,$name" ;; esac
	done << END
$apps
END
fi
# If one of the two tools does not work, the other may.
amd=
for tool in amd-smi rocm-smi; do
	if command -v $tool > /dev/null; then
		case $tool in
			amd-smi) set -- metric --usage --mem-usage --json ;;
			rocm-smi) set -- --showuse --showmeminfo vram --json ;;
		esac
		amd=$(timeout 20 $tool "$@" 2> /dev/null < /dev/null) || :
		case $amd in *'"gpu"'* | *'"card'*) break ;; esac
	fi
done
if [ -n "$amd" ]; then printf 'amd=%s\n' "$(printf '%s' "$amd" | tr '\n' ' ')"; fi
# The cost of this script: ticks of this shell and its children, each a hundredth of a second (proc(5)).
read -r uptime _ < /proc/uptime
echo "uptime=$uptime"
read -r _ _ _ _ _ _ _ _ _ _ _ _ _ own kernel children below _ < /proc/$$/stat
echo "cost=$((own + kernel + children + below))"
}
main
