# shellcheck shell=bash
# Docker and an SSH server for a demonstration, in the folder $work. stop_parts stops what was started here, and nothing else.
# Sourced after machine.sh.

docker=(docker) # a docker command that works
dockerd_pid=
sshd_pid=
made_image=

# wait_for SECONDS COMMAND...
wait_for() {
    local tries=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

# start_docker: set docker. Uses a running daemon, else starts systemd's, which keeps running, else starts one in $work.
start_docker() {
    docker info >/dev/null 2>&1 && return
    if has sudo && sudo -n docker info >/dev/null 2>&1; then
        docker=(sudo -n docker)
        return
    fi
    [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null || refuse_docker
    [ "$(id -u)" -eq 0 ] || docker=(sudo -n docker)
    if on_systemd; then
        as_root systemctl start docker || die "Docker does not start." "To see why:  journalctl -u docker"
    else
        start_dockerd
    fi
    wait_for 60 "${docker[@]}" info || die "Docker does not answer. The end of dockerd's log:" "$(tail -n 5 "$work/dockerd.log" 2>/dev/null)"
}

refuse_docker() {
    case $(docker info 2>&1) in
    *'ermission denied'*)
        die "you may not use Docker on this machine." \
            "Join its group, log in again and run this again:  sudo usermod -aG docker $(id -un)" \
            "(Members of the group docker can become root on this machine.)"
        ;;
    *) die "Docker is not running on this machine." "Start it and run this again:  sudo systemctl start docker" ;;
    esac
}

# Start a daemon without a network, so that it leaves no bridge and no firewall rule behind.
start_dockerd() {
    [ -n "$(ls /sys/fs/cgroup)" ] || as_root mount -t cgroup2 cgroup2 /sys/fs/cgroup
    as_root setsid unshare --net dockerd --data-root "$work/docker" --exec-root "$work/docker-run" --pidfile "$work/dockerd.pid" \
        --bridge none --iptables=false >"$work/dockerd.log" 2>&1 &
    wait_for 30 test -s "$work/dockerd.pid" || die "dockerd does not start. The end of its log:" "$(tail -n 5 "$work/dockerd.log")"
    dockerd_pid=$(cat "$work/dockerd.pid")
}

# make_image NAME: build the image from this machine's own programs, unless there is one.
make_image() {
    if [ "$("${docker[@]}" image inspect --format '{{index .Config.Labels "dstack.made-by"}}' "$1" 2>/dev/null || echo none)" = '' ]; then
        return
    fi
    made_image=$1
    "$python" scripts/lib/make_image.py python |
        "${docker[@]}" import --change 'LABEL dstack.made-by=quickstart' --change 'CMD ["sh"]' - "$1" >/dev/null 2>"$work/import.log" ||
        die "Docker could not store the image $1: $(tail -n 1 "$work/import.log")"
}

# start_sshd: start one that accepts $work/id_ed25519 for $(id -un). Sets port.
start_sshd() {
    local sshd pam=no
    sshd=$(PATH="$PATH:/usr/sbin:/sbin" command -v sshd)
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$work/id_ed25519"
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$work/host_key"
    cp "$work/id_ed25519.pub" "$work/authorized_keys"
    if [ "$(id -u)" -eq 0 ]; then
        mkdir -p /run/sshd
        # sshd refuses users with a locked password, unless it uses PAM.
        case $(getent shadow root | cut -d: -f2) in !*) pam=yes ;; esac
    fi
    port=$(free_port)
    cat >"$work/sshd_config" <<-END
	ListenAddress 127.0.0.1
	Port $port
	HostKey $work/host_key
	AuthorizedKeysFile $work/authorized_keys
	AllowUsers $(id -un)
	PermitRootLogin prohibit-password
	PasswordAuthentication no
	KbdInteractiveAuthentication no
	StrictModes no
	UsePAM $pam
	PidFile none
	PrintMotd no
	PrintLastLog no
	MaxStartups 200
	Subsystem sftp internal-sftp
	END
    "$sshd" -D -f "$work/sshd_config" -E "$work/sshd.log" &
    sshd_pid=$!
    wait_for 20 try_ssh || die "logging in to the test's SSH server failed. The end of its log:" "$(tail -n 5 "$work/sshd.log")"
}

try_ssh() {
    ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile="$work/known_hosts" \
        -o IdentitiesOnly=yes -o IdentityAgent=none -i "$work/id_ed25519" -p "$port" "$(id -un)@127.0.0.1" true
}

fingerprint() { ssh-keygen -l -f "$work/host_key.pub" | cut -d' ' -f2; }

# Stop what was started here. Never fails, because it runs when a script exits.
stop_parts() {
    [ -z "$made_image" ] || "${docker[@]}" rmi -f "$made_image" >/dev/null 2>&1 || true
    [ -z "$sshd_pid" ] || kill "$sshd_pid" 2>/dev/null || true
    if [ -n "$dockerd_pid" ]; then
        as_root kill "$dockerd_pid" 2>/dev/null || true
        wait_for 30 gone "$dockerd_pid" || true
        awk -v folder="$work/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do
            as_root umount -l "$mount" || true
        done
        as_root rm -rf "$work/docker" "$work/docker-run"
    fi
}

gone() { [ ! -e "/proc/$1" ]; }
