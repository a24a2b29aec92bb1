# shellcheck shell=bash
# Find and install what a script needs on this machine. Sourced by the scripts in the parent folder, from the root of the checkout.

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
    [ -s "${install_log:-}" ] || rm -f "${install_log:-}"
    exit 1
}

say() { printf '%s\n' "$*" >&2; }

has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

on_systemd() { [ -d /run/systemd/system ]; }

# Whether as_root works: as root, or with a sudo that needs no password or can ask for one.
can_be_root() { [ "$(id -u)" -eq 0 ] || { has sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Set python to one that is new enough.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if has "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
            python=$candidate
            return
        fi
    done
    if has python3; then
        die "dstack needs Python 3.10 or newer; this machine has $(python3 --version 2>&1 | cut -d' ' -f2)." \
            "Debian 12 and Ubuntu 22.04 have a newer one. On other systems, install one as python3.10 or later."
    fi
    python=python3
}

# Whether $python can create virtual environments. Debian has a separate package for that.
makes_venvs() { has "$python" && "$python" -c 'import ensurepip, venv' 2>/dev/null; }

# The package that lets $python create virtual environments.
venv_package() {
    if [ "$python" = python3 ]; then echo python3-venv; else echo "$python-venv"; fi
}

has_static_busybox() { has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }

# Packages that are missing, and the services that they would start.
missing=()
units=()

# need COMMAND PACKAGE
need() { has "$1" || missing+=("$2"); }

need_python() {
    find_python
    need "$python" "$python"
    makes_venvs || missing+=("$(venv_package)")
}

need_sshd() {
    has sshd && return
    missing+=(openssh-server)
    units+=(ssh.service ssh.socket)
}

need_docker() {
    has docker && { has dockerd || docker info >/dev/null 2>&1; } && return
    missing+=(docker.io)
    # Debian 13 has a separate package for the client.
    if apt-cache show docker-cli >/dev/null 2>&1; then missing+=(docker-cli); fi
    units+=(docker.service docker.socket containerd.service)
}

# install_missing: with apt. Starts no service, and keeps new services from starting when the machine boots.
install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    has apt-get || die "some packages are missing (their names in Debian): ${missing[*]}" "Install them and run this again."
    can_be_root || die "some packages are missing: ${missing[*]}" "Install them and run this again:  sudo apt-get install ${missing[*]}"
    say "Installing with apt: ${missing[*]}"
    apt_without_services "${missing[@]}"
    [ ${#units[@]} -eq 0 ] || disable_services "${units[@]}"
    hash -r
    makes_venvs || die "$python still can't create virtual environments." "Install $(venv_package) and run this again."
}

apt_without_services() (
    # policy-rc.d: 101 forbids every action on every service.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    logged as_root apt-get -qq update
    logged as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"
)

disable_services() {
    has systemctl || return 0
    local unit
    for unit in "$@"; do
        if as_root systemctl disable --quiet "$unit" 2>/dev/null; then say "$unit will not start when the machine boots"; fi
    done
}

# The output of apt and pip. It is kept if one of them fails.
install_log=$(mktemp /tmp/dstack-install-XXXXXX)
trap 'rm -f "$install_log"; exit 130' INT
trap 'rm -f "$install_log"; exit 143' TERM HUP

logged() {
    "$@" >>"$install_log" 2>&1 </dev/null || die "'$*' failed. All of its output is in $install_log. What it reported:" "$(reported)"
}

# The errors in the log or, if it has none that are marked, its end. pip says in warnings why it can't reach its index, and
# between its errors what a build printed.
reported() {
    if ! grep -q 'subprocess-exited-with-error' "$install_log"; then
        grep -E '^ *(E|ERROR|error|W|WARNING: Retrying|fatal)[: ]' "$install_log" | sed -E 's/Retrying \(Retry\([^)]*\)\)/Retrying/' |
            awk '!seen[$0]++' | tail -n 10 | cut -c1-500 | sed 's/^/  /' | grep . && return
    fi
    tail -n 30 "$install_log" | sed 's/^/  /'
}

# free_port: print a loopback port that nothing listens on.
free_port() {
    "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# install_checkout EXTRAS: install the checkout into .venv, unless pyproject.toml has not changed since the last time.
install_checkout() {
    local extras=$1 wanted stamp
    wanted="$(sha256sum pyproject.toml) $("$python" --version 2>&1) $PWD"
    for stamp in .venv/installed .venv/installed-dev; do
        if [ -z "$extras" ] || [ "$stamp" = .venv/installed-dev ]; then
            if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c 'import dstack' 2>/dev/null; then
                return
            fi
        fi
    done
    say "Installing dstack into .venv"
    .venv/bin/python -c '' 2>/dev/null || logged "$python" -m venv --clear .venv
    rm -f .venv/installed .venv/installed-dev
    logged .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras"
    if [ -n "$extras" ]; then stamp=.venv/installed-dev; else stamp=.venv/installed; fi
    printf '%s\n' "$wanted" >"$stamp"
}
