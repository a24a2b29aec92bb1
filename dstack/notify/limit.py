"""A time limit for a whole exchange: the one of a socket begins anew with every byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dstack.notify.addresses import hang_up

READ = 10.0
"""Seconds for connecting, and for each read and write."""
WHOLE = 30.0
"""Seconds for everything that is said over a connection."""


@contextmanager
def limited(opened: socket.socket) -> Iterator[None]:
    """End the connection once the whole exchange takes too long. Raises TimeoutError then."""
    late, same = threading.Event(), opened.dup()  # TLS takes over the socket itself

    def end() -> None:
        late.set()
        hang_up(same)

    timer = threading.Timer(WHOLE, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
        same.close()
