"""A real Docker registry of the tests' own (Debian's docker-registry), on the loopback, which Docker trusts."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path

from tests.environment import needs
from tests.environment.sshd import free_port
from tests.environment.waiting import until

CONFIG = """
version: 0.1
log: {{level: info}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


class Registry:
    """Serves images at `127.0.0.1:PORT`. `log` is what it was asked."""

    def __init__(self, folder: Path) -> None:
        if not shutil.which("docker-registry"):
            needs.missing("docker-registry is not installed; install it: apt-get install docker-registry")
        self.folder = folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        folder.mkdir()
        (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=self.port))
        with (folder / "log").open("wb") as log:
            asked = ["docker-registry", "serve", str(folder / "config.yml")]
            self._process = subprocess.Popen(asked, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._answers, "the registry answers", 30)

    @property
    def log(self) -> str:
        """What it was asked, a line a request."""
        return (self.folder / "log").read_text()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/v2/", timeout=5):
                return True
        except OSError:
            return False
