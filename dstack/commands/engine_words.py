"""What Docker and podman say when they refuse something."""

from __future__ import annotations

import re

LAYERS = re.compile(
    r"^(docker: |Error response from daemon: |Error: |failed to create (shim|task)[a-z ]*: |OCI runtime create failed: "
    r"|runc create failed: |container_linux\.go:\d+: |starting container process caused: |process_linux\.go:\d+: "
    r"|unable to start container process: |container init caused: |error during container init: "
    r"|[Rr]unning hook #\d+:+ |error running hook #?\d*: |error running (prestart )?hook: "
    r"|exit status \d+, stdout: , stderr: )+"
)
HELP = re.compile(r" (Run|See) 'docker [a-z ]*--help'.*$")
END = re.compile(r"(: unknown)?[.]?$")


def unwrapped(words: str) -> str:
    """Return the message in one line, without the prefixes that Docker's layers added, and without its advice."""
    return HELP.sub("", LAYERS.sub("", " ".join(words.split())))


def bare(words: str) -> str:
    """Return the message as `unwrapped` does, and without a full stop, so that a sentence may go on."""
    return END.sub("", unwrapped(words))
