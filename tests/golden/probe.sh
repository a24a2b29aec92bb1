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
has() { command -v "$1" > /dev/null; }
# Blocks and inodes that are free, and the mount that holds a folder.
disk() {
	read -r _ total _ free _ point << END
$(df -Pk "$2" | sed -n 2p)
END
	read -r _ inodes _ spare _ << END
$(df -Pi "$2" 2> /dev/null | sed -n 2p)
END
	echo "$1_free=$free"
	echo "$1_total=$total"
	echo "$1_inodes=$inodes $spare"
}
echo "machine=$machine"
echo "user=$(id -un)"
echo "kernel=$(uname -r)"
echo "cpus=$(getconf _NPROCESSORS_ONLN 2> /dev/null || grep -c '^processor' /proc/cpuinfo)"
echo "memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
echo "memory_free=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
echo "load=$(cut -d ' ' -f 1 /proc/loadavg)"

# The root is made by the first job: ask the nearest folder that is there.
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
if has git; then echo "git=$(git --version 2> /dev/null | cut -d ' ' -f 3)"; fi

set -- 'docker'
answers=no
if ! has "$1"; then
	echo "client=none"
	if has podman; then echo podman=yes; fi
elif client=$("$@" --version 2>&1 < /dev/null); then
	printf 'client=%s\n' "$(printf '%s' "$client" | oneline)"
	if said=$(timeout 20 "$@" ps --quiet 2>&1 < /dev/null); then
		echo answers=yes
		answers=yes
		format='docker_root={{.DockerRootDir}}
server={{.ServerVersion}}
rootless={{.SecurityOptions}}'
		if info=$(timeout 20 "$@" info --format "$format" 2> /dev/null < /dev/null); then
			printf '%s\n' "$info"
			data=$(printf '%s\n' "$info" | sed -n 's/^docker_root=//p')
			if [ -d "$data" ]; then disk docker_disk "$data"; fi
		fi
	else
		printf 'refusal=%s\n' "$(printf '%s' "$said" | oneline)"
		own=/run/user/$(id -u)/docker.sock
		if timeout 20 "$@" -H "unix://$own" ps --quiet > /dev/null 2>&1 < /dev/null; then echo "own_docker=$own"; fi
		if has sudo && timeout 20 sudo -n "$@" ps --quiet > /dev/null 2>&1 < /dev/null; then echo sudo=yes; fi
	fi
else
	printf 'refusal=%s\n' "$(printf '%s' "$client" | oneline)"
fi
if [ -e "/var/lib/systemd/linger/$(id -un)" ] || ! has loginctl; then echo lingers=yes; else echo lingers=no; fi

# Who computes on a GPU: the process, its user, and the server whose job it is, if it is one.
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
			# A GPU that does not tell of processes says [N/A] or [Not Supported] for one.
			case ${pid# } in *[!0-9]* | '') ;; *) used_by "$uuid" "${pid# }" "${name# }" "$@" ;; esac
		done || :
}
# The device of each AMD GPU (PCI vendor 1002) with its PCI address, and who computes on it: the kernel names a GPU's
# memory that a process has vram_ID, and the device of ID in its topology (Documentation/ABI: sysfs-class-kfd).
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
# Drivers older than 450 know no MIG, and refuse the whole question.
nvidia() {
	fields=index,name,memory.total,uuid,driver_version
	if said=$(timeout 20 nvidia-smi --query-gpu=$fields,mig.mode.current --format=csv,noheader,nounits 2>&1 < /dev/null); then return; fi
	case $said in
		*'not a valid field'*) said=$(timeout 20 nvidia-smi --query-gpu=$fields --format=csv,noheader,nounits 2>&1 < /dev/null) ;;
		*) return 1 ;;
	esac
}
gpus=no
if has nvidia-smi; then
	if nvidia; then
		gpus=yes
		printf '%s\n' "$said" | sed -n 's/^[0-9]/gpu=&/p'
		case $said in
			*', Enabled'*) timeout 20 nvidia-smi -L 2> /dev/null < /dev/null | sed -n -e 's/^GPU \([0-9][0-9]*\): .*/mig=\1/p' -e 's/^ *MIG \([^ ]*\) .*/mig=\1/p' || : ;;
		esac
		users_of_gpus "$@"
	else
		printf 'driver=%s\n' "$(printf '%s' "$said" | oneline)"
	fi
fi
# Where one of the two tools does not work, the other may. Neither's exit status says whether it answered.
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
}
main
