#!/usr/bin/env python3
"""Write the root file system of a small Docker image to stdout, as a tar made of this machine's own programs.

    make_image.py busybox | docker import - busybox
    make_image.py python --add FOLDER | docker import - python:3.11-slim

For machines that can't reach a registry. The same input gives the same bytes. Standard library only.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

TOOLS = """
    bash sh cat chmod chown cp date dd df dirname basename du echo env expr find free git grep head hostname id kill
    ln ls mkdir mkfifo mv nice nohup od printf ps pwd readlink rm rmdir sed seq sha256sum sleep sort stat stty sync
    tail tar tee test timeout touch tr true false truncate tty uname uniq wc whoami xargs yes
"""
UNUSED = "__pycache__|test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|site-packages|dist-packages|config-.*"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n"
GROUP = "root:x:0:\nnogroup:x:65534:\n"


class Root:
    """A root file system being built. It is written sorted and without times."""

    def __init__(self) -> None:
        self.entries: dict[str, Path | str | bytes | None] = {}

    def folder(self, path: str) -> None:
        self.entries.setdefault(path.strip("/"), None)

    def file(self, path: str, source: Path | bytes) -> None:
        self.entries[path.strip("/")] = source

    def link(self, path: str, target: str) -> None:
        self.entries[path.strip("/")] = target

    def program(self, path: str, source: Path) -> None:
        """Add a program with its shared libraries."""
        self.file(path, source)
        for library in libraries(source):
            self.file(library, Path(library))

    def tree(self, path: str, source: Path) -> None:
        """Add a folder with everything below it, except what only tests and installers need."""
        for name in sorted(os.listdir(source)):
            below = source / name
            if re.fullmatch(UNUSED, name):
                continue
            if below.is_dir():
                self.tree(f"{path}/{name}", below)
            elif name.endswith(".so"):
                self.program(f"{path}/{name}", below)
            else:
                self.file(f"{path}/{name}", below)

    def write(self, out: tarfile.TarFile) -> None:
        folders = {str(parent) for path in self.entries for parent in Path(path).parents} - {"."}
        for path in sorted(folders | set(self.entries)):
            self._add(out, path, self.entries.get(path))

    @staticmethod
    def _add(out: tarfile.TarFile, path: str, what: Path | str | bytes | None) -> None:
        entry = tarfile.TarInfo(path)
        entry.mode = 0o1777 if path == "tmp" else 0o755
        if what is None:
            entry.type = tarfile.DIRTYPE
        elif isinstance(what, str):
            entry.type, entry.linkname = tarfile.SYMTYPE, what
        else:
            content = what if isinstance(what, bytes) else what.read_bytes()
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
            return
        out.addfile(entry)


@functools.cache
def libraries(program: Path) -> tuple[str, ...]:
    """Return the shared libraries of a program, including the loader, as ldd(1) lists them; none for a static one."""
    answer = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return tuple(re.findall(r"^\t(?:\S+ => )?(/\S+) \(0x", answer, re.MULTILINE))


def busybox() -> Root:
    """Add one static program under all its names."""
    source = shutil.which("busybox")
    if source is None or libraries(Path(source)):
        sys.exit("make_image.py: no static busybox here; install it: apt-get install busybox-static")
    root = Root()
    root.file("bin/busybox", Path(source))
    for applet in subprocess.run([source, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            root.link(f"bin/{applet}", "busybox")
    return root


def python() -> Root:
    """Add bash, coreutils, git and Python with its standard library, below /usr wherever they are on this machine."""
    root = Root()
    for tool in TOOLS.split():
        source = shutil.which(tool)
        if source is not None:
            root.program(f"usr/bin/{tool}", Path(source).resolve())
    root.link("bin", "usr/bin")
    version, program, library = interpreter()
    root.program(f"usr/bin/python{version}", program)
    root.tree(f"usr/lib/python{version}", library)
    for name in ("python", "python3"):
        root.link(f"usr/bin/{name}", f"python{version}")
    return root


def interpreter() -> tuple[str, Path, Path]:
    """Return the version, program and standard library of the system's Python, or of this one."""
    ask = "import sys, sysconfig; print('%d.%d' % sys.version_info[:2], sysconfig.get_path('stdlib'))"
    system = Path("/usr/bin/python3")
    if not system.exists():
        here = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        return "{}.{}".format(*sys.version_info), here, Path(sysconfig.get_path("stdlib"))
    answer = subprocess.run([system, "-I", "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    return answer[0], system.resolve(), Path(answer[1])


def common(root: Root) -> None:
    """Add what every image has."""
    for folder in ("tmp", "root", "proc", "sys", "dev", "var/tmp"):
        root.folder(folder)
    root.file("etc/passwd", PASSWD.encode())
    root.file("etc/group", GROUP.encode())


def below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file in a folder, with its path in the image."""
    for source in sorted(folder.rglob("*")):
        if source.is_file():
            yield str(source.relative_to(folder)), source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("busybox", "python"))
    parser.add_argument("--add", type=Path, help="a folder whose files are laid over the image's root, executable")
    arguments = parser.parse_args()
    root = busybox() if arguments.kind == "busybox" else python()
    common(root)
    for path, source in below(arguments.add) if arguments.add else ():
        root.file(path, source)
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.GNU_FORMAT) as out:
        root.write(out)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)  # end without a traceback
    main()
