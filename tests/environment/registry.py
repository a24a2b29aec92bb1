"""A real Docker registry (Debian's docker-registry) on loopback, which Docker trusts without TLS."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from tests.environment import needs
from tests.environment.sshd import free_port
from tests.environment.throttle import Throttle
from tests.environment.waiting import until

CONFIG = """
version: 0.1
log: {{level: info}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: 127.0.0.1:{port}}}
"""
AUTH = "auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}\n"
USER, PASSWORD = "ann", "pass word$1"
HASH = "$2b$04$CckvSPWrdYlAdmWGlRpFk.8jKXrQZB2qHJmOQZCI7PD5ebEX.SMWy"
"""The password's bcrypt hash, as `htpasswd -nbB` writes it."""


class Registry:
    """Serves images at `address`, over a connection that can be slowed down. `log` holds its requests. `closed`: only
    USER with PASSWORD may pull and push."""

    def __init__(self, folder: Path, *, closed: bool = False) -> None:
        if not shutil.which("docker-registry"):
            needs.missing("docker-registry is not installed; install it: apt-get install docker-registry")
        self.folder = folder
        self.port = free_port()
        self.way = Throttle(self.port)
        self.address = f"127.0.0.1:{self.way.port}"
        folder.mkdir()
        (folder / "htpasswd").write_text(f"{USER}:{HASH}\n")
        text = (CONFIG + AUTH if closed else CONFIG).format(folder=folder, port=self.port)
        (folder / "config.yml").write_text(text)
        with (folder / "log").open("wb") as log:
            asked = ["docker-registry", "serve", str(folder / "config.yml")]
            self._process = subprocess.Popen(asked, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._answers, "the registry answers", 30)

    @property
    def log(self) -> str:
        """Its requests, one per line."""
        return (self.folder / "log").read_text()

    def close(self) -> None:
        """Stop it."""
        self.way.close()
        self._process.terminate()
        self._process.wait(30)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/", timeout=5):
                return True
        except urllib.error.HTTPError as refused:
            return refused.code == 401
        except OSError:
            return False
