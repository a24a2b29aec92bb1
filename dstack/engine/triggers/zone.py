"""The time zone of the server's machine."""

from __future__ import annotations

import os
from pathlib import Path

from dstack.model.triggers.cron import time_zone

LOCALTIME = Path("/etc/localtime")
ZONES = "/zoneinfo/"


def local_zone() -> str:
    """Return the name of the zone, such as Europe/Berlin: from TZ, or from where /etc/localtime leads; else UTC."""
    for name in (os.environ.get("TZ", "").lstrip(":"), os.path.realpath(LOCALTIME).rpartition(ZONES)[2]):
        if name and not name.startswith("/"):
            try:
                return time_zone(name).key
            except ValueError:
                continue
    return "UTC"
