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
base=$root/$machine/'probe'
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
oneline() { tr '\n' ' '; }
has() { command -v "$1" > /dev/null; }
# Prints the free and total blocks and inodes of a folder's file system; sets $point to its mount point.
disk() {
	{ read -r _ && read -r _ total _ free _ point; } << END
$(df -Pk "$2")
END
	read -r inodes spare << END || :
$(stat -f -c '%c %d' "$2" 2> /dev/null)
END
	echo "$1_free=$free"
	echo "$1_total=$total"
	echo "$1_inodes=$inodes $spare"
}
echo "machine=$machine"
boot='' up=''
if [ -r '/proc/sys/kernel/random/boot_id' ]; then read -r boot < '/proc/sys/kernel/random/boot_id' || :; fi
if [ -r '/proc'/uptime ]; then read -r up _ < '/proc'/uptime || :; fi
echo "boot=$boot"
if [ -n "$up" ]; then echo "booted=$(($(date +%s) - ${up%%.*}))"; fi
printf 'root=%s\n' "$(readlink -f "$root" 2> /dev/null || echo "$root")"
user=$(id -un)
echo "user=$user"
read -r kernel < /proc/sys/kernel/osrelease
echo "kernel=$kernel"
echo "cpus=$(getconf _NPROCESSORS_ONLN 2> /dev/null || grep -c '^processor' /proc/cpuinfo)"
while read -r key value _; do
	case $key in
		MemTotal:) echo "memory=$value" ;;
		MemAvailable:) echo "memory_free=$value" && break ;;
	esac
done < /proc/meminfo
read -r load _ < /proc/loadavg
echo "load=$load"

# The first job creates the root: until then, check the nearest folder that exists.
folder=$root
while ! [ -e "$folder" ]; do folder=${folder%/*} && folder=${folder:-/}; done
printf 'folder=%s\n' "$folder"
if [ -d "$folder" ] && [ -w "$folder" ] && [ -x "$folder" ]; then echo writable=yes; else echo writable=no; fi
disk disk "$folder"
while read -r _ mounted type options _; do
	if [ "$mounted" = "$point" ]; then mount="$point $type $options"; fi
done < /proc/self/mounts
printf 'mount=%s\n' "${mount:-}"

for tool in flock sha256sum tar timeout curl; do
	if ! has "$tool"; then echo "missing=$tool"; fi
done
if has git; then
	read -r _ _ git _ << END || :
$(git --version 2> /dev/null)
END
	echo "git=$git"
fi

set -- 'docker'
format='engine={{.ID}}
docker_root={{.DockerRootDir}}
server={{.ServerVersion}}
rootless={{.SecurityOptions}}'
answers=no
data=
if ! has "$1"; then
	echo "client=none"
	if has podman; then echo podman=yes; fi
else
	# If all is well, one command answers everything. Another engine under this name does not know the template.
	info=$(timeout 8 "$@" info --format "$format" 2> /dev/null < /dev/null) || :
	while IFS= read -r line; do
		case $line in docker_root=?*) data=${line#*=} ;; esac
	done << END
$info
END
fi
if [ -n "$data" ]; then
	printf 'answers=yes\n%s\n' "$info"
	answers=yes
	if [ -d "$data" ]; then disk docker_disk "$data"; fi
elif ! has "$1"; then
	:
elif client=$("$@" --version 2>&1 < /dev/null); then
	printf 'client=%s\n' "$(printf '%s' "$client" | oneline)"
	status=0
	output=$(timeout 20 "$@" ps --quiet 2>&1 < /dev/null) || status=$?
	if [ $status -eq 0 ]; then
		echo answers=yes
		answers=yes
	else
		printf 'refusal=%s\n' "$(printf '%s' "$output" | oneline)"
	fi
	# After a time-out, no time is left for this.
	if [ $status -ne 0 ] && [ $status -ne 124 ]; then
		own=/run/user/$(id -u)/docker.sock
		if timeout 20 "$@" -H "unix://$own" ps --quiet > /dev/null 2>&1 < /dev/null; then echo "own_docker=$own"; fi
		if has sudo && timeout 20 sudo -n "$@" ps --quiet > /dev/null 2>&1 < /dev/null; then echo sudo=yes; fi
	fi
else
	printf 'refusal=%s\n' "$(printf '%s' "$client" | oneline)"
fi
if [ -e "/var/lib/systemd/linger/$user" ] || ! has loginctl; then echo lingers=yes; else echo lingers=no; fi

# Prints a process that uses a GPU: its pid and user, and the server if it belongs to a job.
used_by() {
	gpu=$1
	pid=$2
	name=$3
	shift 3
	id=$(sed -n 's/.*\([0-9a-f]\{64\}\).*/\1/p' "/proc/$pid/cgroup" 2> /dev/null | sed -n 1p || :)
	server=
	if [ -n "$id" ]; then
		server=$(timeout 20 "$@" inspect --format '{{index .Config.Labels "dstack.server"}}' "$id" 2> /dev/null < /dev/null || :)
	fi
	printf 'app=%s,%s,%s,%s,%s\n' "$gpu" "$pid" "$(stat -c %U "/proc/$pid" 2> /dev/null || :)" "$server" "$name"
}
users_of_gpus() {
	timeout 20 nvidia-smi --query-gpu=uuid,memory.used --format=csv,noheader,nounits 2> /dev/null < /dev/null |
		sed -n 's/^[A-Za-z]/gpu_memory=&/p' || :
	timeout 20 nvidia-smi --query-compute-apps=gpu_uuid,pid,process_name --format=csv,noheader 2> /dev/null < /dev/null |
		while IFS=, read -r uuid pid name; do
			# A GPU that does not report processes prints [N/A] or [Not Supported].
			case ${pid# } in *[!0-9]* | '') ;; *) used_by "$uuid" "${pid# }" "${name# }" "$@" ;; esac
		done || :
}
# Prints the device of each AMD GPU (PCI vendor 1002) with its PCI address, and the processes that use it. The kernel has
# a file vram_ID for a process's memory on a GPU, and ID's device in its topology (Documentation/ABI: sysfs-class-kfd).
amd_nodes() {
	for node in '/sys'/class/drm/renderD*; do
		vendor=
		if [ -r "$node/device/vendor" ]; then read -r vendor < "$node/device/vendor" || :; fi
		if [ "$vendor" = 0x1002 ] && at=$(readlink -f "$node/device"); then echo "render=${node##*/} ${at##*/}"; fi
	done
	for held in '/sys'/class/kfd/kfd/proc/[0-9]*/vram_*; do
		bytes=0
		if [ -r "$held" ]; then read -r bytes < "$held" || :; fi
		if [ "$bytes" = 0 ]; then continue; fi
		pid=${held%/*}
		pid=${pid##*/}
		for known in '/sys'/class/kfd/kfd/topology/nodes/*; do
			read -r id < "$known/gpu_id" || continue
			if [ "$id" = "${held##*_}" ]; then
				used_by "renderD$(sed -n 's/^drm_render_minor //p' "$known/properties")" "$pid" "$(cat "/proc/$pid/comm" 2> /dev/null || :)" "$@"
			fi
		done
	done
}
# Drivers older than 450 don't know MIG, and refuse the whole query.
nvidia() {
	fields=index,name,memory.total,uuid,driver_version
	if output=$(timeout 20 nvidia-smi --query-gpu=$fields,mig.mode.current --format=csv,noheader,nounits 2>&1 < /dev/null); then return; fi
	case $output in
		*'not a valid field'*) output=$(timeout 20 nvidia-smi --query-gpu=$fields --format=csv,noheader,nounits 2>&1 < /dev/null) ;;
		*) return 1 ;;
	esac
}
gpus=no
indexes=''
if has nvidia-smi; then
	if nvidia; then
		gpus=yes
		printf '%s\n' "$output" | sed -n 's/^[0-9]/gpu=&/p'
		# Those that jobs get: neither broken nor split.
		indexes=$(printf '%s\n' "$output" | sed -n -e 's/\[N\/A]//g' -e 's/\[Not Supported]//g' -e '/\[/d' -e '/, Enabled/d' -e 's/^\([0-9][0-9]*\),.*/\1/p')
		case $output in
			*', Enabled'*) timeout 20 nvidia-smi -L 2> /dev/null < /dev/null | sed -n -e 's/^GPU \([0-9][0-9]*\): .*/mig=\1/p' -e 's/^ *MIG \([^ ]*\) .*/mig=\1/p' || : ;;
		esac
		users_of_gpus "$@"
	else
		printf 'driver=%s\n' "$(printf '%s' "$output" | oneline)"
	fi
fi
# If one of the two tools does not work, the other may. Their exit status does not say whether they answered.
amd=
refusal=
for tool in amd-smi rocm-smi; do
	if has $tool; then
		case $tool in
			amd-smi) set -- static --asic --bus --vram --driver --json ;;
			rocm-smi) set -- --showproductname --showmeminfo vram --showuniqueid --showbus --showdriverversion --json ;;
		esac
		amd=$(timeout 12 $tool "$@" 2>&1 < /dev/null) || [ $? -ne 124 ] || amd='no answer within 12 seconds'
		case $amd in *'"gpu"'* | *'"card'*) break ;; esac
		refusal="$refusal$tool: $(printf '%s' "$amd" | oneline) "
		amd=
	fi
done
set -- 'docker'
if [ -n "$amd" ] || [ -n "$refusal" ] || [ -e '/dev'/kfd ]; then
	printf 'amd=%s\n' "$(printf '%s' "$amd" | oneline)"
	printf 'amd_refusal=%s\n' "$refusal"
	amd_nodes "$@"
fi
echo "clock=$(date +%s)"
# The cost of this script: ticks of this shell and its children, each a hundredth of a second (proc(5)).
read -r _ _ _ _ _ _ _ _ _ _ _ _ _ own kernel children below _ < /proc/$$/stat
echo "cost=$((own + kernel + children + below))"
}
main
