"""The exact text of each finding, and which findings keep jobs away."""

from __future__ import annotations

import pytest

from dstack.commands.command import Result
from dstack.commands.machine.doctor import skewed
from dstack.commands.machine.probe import probe
from dstack.model.runner.runner import Finding
from tests.unit.commands.machine.test_probe import GOOD, NO_SOCKET


def found(docker: str = "docker", more: str = "", **changes: str | None) -> tuple[Finding, ...]:
    said = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    text = "".join(f"{key}={value}\n" for key, value in said.items()) + more
    return probe("~/.dstack-host", docker).parse(Result(0, text.encode(), b"")).findings


GOLDEN: list[tuple[str, dict[str, str | None], str]] = [
    (
        "docker",
        {"client": "none", "answers": None, "podman": "yes"},
        """'docker' is not installed
every job runs in a container
add it with --docker podman, which is installed; or sudo apt-get install docker.io, or the equivalent for your \
system's package manager
blocks""",
    ),
    (
        "docker",
        {"answers": None, "refusal": NO_SOCKET, "sudo": "yes"},
        f"""ann is not allowed to use Docker: {NO_SOCKET}
every job runs in a container
add it with --docker 'sudo -n docker', which works; or sudo usermod -aG docker ann
blocks""",
    ),
    (
        "docker",
        {"answers": None, "refusal": "Cannot connect", "own_docker": "/run/user/1000/docker.sock"},
        """ann has a rootless Docker at /run/user/1000/docker.sock, and can't use the machine's Docker: \
Cannot connect
every job runs in a container
add it with --docker 'docker -H unix:///run/user/1000/docker.sock'
blocks""",
    ),
    (
        "docker",
        {"answers": None, "refusal": "Cannot connect to the Docker daemon"},
        """Docker does not answer: Cannot connect to the Docker daemon
every job runs in a container
sudo systemctl start docker
blocks""",
    ),
    (
        "docker",
        {"git": None},
        """git is not installed
dstack transfers your code as git objects
sudo apt-get install git, or the equivalent for your system's package manager
blocks""",
    ),
    (
        "docker",
        {"missing": "curl"},
        """'curl' is not installed
dstack uses it to upload artifacts to S3
sudo apt-get install curl, or the equivalent for your system's package manager
passes""",
    ),
    (
        "docker",
        {"mount": "/home ext4 ro,relatime", "writable": "no"},
        """/home/ann is on a file system that is mounted read-only (/home)
dstack keeps jobs and their code there
sudo mount -o remount,rw /home, or choose another folder with --root
blocks""",
    ),
    (
        "docker",
        {"mount": "/home ext4 rw,noexec"},
        """/home/ann is on a file system that is mounted noexec (/home)
a job can't run programs from its own tree, such as ./run.sh
choose another folder with --root, or: sudo mount -o remount,exec /home
passes""",
    ),
    (
        "docker",
        {"mount": "/home nfs4 rw,vers=4.2"},
        """/home/ann is on a network file system (nfs4)
it is slow, and root in a container may not be allowed to read it
choose a folder on a local disk with --root
passes""",
    ),
    (
        "docker",
        {"disk_free": "1024", "disk_total": "104857600"},
        """the disk of /home/ann is full: 1 MB of 107.4 GB free
dstack writes code, logs and results of jobs there
find what fills it: sudo du -xh --max-depth=2 /home/ann | sort -h | tail
blocks""",
    ),
    (
        "docker",
        {"docker_root": "/var/lib/docker", "docker_disk_free": "2097152", "docker_disk_total": "104857600"},
        """the disk of /var/lib/docker has only 2.1 GB free
Docker keeps images and containers there
docker system prune, or give Docker another data-root
passes""",
    ),
    (
        "docker",
        {"disk_inodes": "6553600 0"},
        """the disk of /home/ann has almost no inodes left: 0 of 6553600 free
no files can be created there
find what fills it: sudo du -xh --max-depth=2 /home/ann | sort -h | tail
blocks""",
    ),
    (
        "docker",
        {"driver": "Failed to initialize NVML: Driver/library version mismatch "},
        """nvidia-smi fails: Failed to initialize NVML: Driver/library version mismatch
jobs that ask for GPUs can't run here
sudo reboot
passes""",
    ),
    (
        "docker",
        {
            "gpu": "0, NVIDIA L4, 23034, GPU-1",
            "gpu_container": 'could not select device driver "" with capabilities: [[gpu]]. ',
        },
        """containers don't get the GPUs: could not select device driver "" with capabilities: [[gpu]].
jobs that ask for GPUs fail when they start
install the NVIDIA Container Toolkit: sudo apt-get install nvidia-container-toolkit, then sudo nvidia-ctk runtime \
configure --runtime=docker && sudo systemctl restart docker
passes""",
    ),
    (
        "sudo -n docker",
        {"client": "podman version 4.3.1 ", "server": ""},
        """'docker' on this machine is actually podman
podman needs other options than Docker
add it with --docker 'sudo -n podman'
blocks""",
    ),
    (
        "podman",
        {"client": "podman version 4.3.1 ", "server": "", "rootless": "true", "lingers": "no"},
        """processes of ann end with the last login session
a rootless engine's containers belong to the login session, so jobs would end with it
sudo loginctl enable-linger ann
passes""",
    ),
    (
        "docker",
        {"memory_free": "102400"},
        """only 100 MB of memory is available
jobs may run out of it
find what uses it: ps aux --sort=-rss | head
passes""",
    ),
]


@pytest.mark.parametrize(("docker", "changes", "words"), GOLDEN)
def test_a_finding_word_by_word(docker: str, changes: dict[str, str | None], words: str) -> None:
    (finding,) = found(docker, **changes)

    assert f"{finding.what}\n{finding.why}\n{finding.fix}\n{'blocks' if finding.blocking else 'passes'}" == words


def test_everything_is_found_at_once_and_what_blocks_comes_first() -> None:
    names = [each.name for each in found("docker", "missing=curl\nmissing=tar\n", client="none", git=None)]

    assert names == ["docker-missing", "git", "tar", "curl"]


@pytest.mark.parametrize(
    "words",
    [
        'exec: "/dstack-nothing": stat /dstack-nothing: no such file or directory: unknown.',
        "crun: executable file `/dstack-nothing` not found: No such file or directory",
    ],
)
def test_a_container_that_lacks_only_its_program_got_the_gpus(words: str) -> None:
    assert found(gpu="0, NVIDIA L4, 23034, GPU-1", gpu_container=words) == ()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("", "no answer within 60 seconds"),
        (
            "docker: Error response from daemon: failed to create shim task: OCI runtime create failed: no GPU 4: "
            "unknown. Run 'docker run --help' for more information",
            "no GPU 4: unknown.",
        ),
    ],
)
def test_gpus_that_are_declared_were_tried(words: str, what: str) -> None:
    (finding,) = found(gpu_container=words)

    assert finding.what == f"containers don't get the GPUs: {what}"


def test_file_systems_without_inodes_of_their_own_are_fine() -> None:
    assert found(disk_inodes="0 0") == found(disk_inodes="- -") == ()


def test_clocks() -> None:
    ahead, behind = skewed(1000, 500), skewed(500, 1000.4)

    assert ahead is not None
    assert behind is not None
    assert ahead.what == "its clock is 500 seconds ahead of the server's"
    assert behind.what == "its clock is 500 seconds behind the server's"
    assert skewed(1000, 1030) is None
