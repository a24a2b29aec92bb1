"""Where a reader of a log stands: with this and the log itself, another reader goes on."""

from __future__ import annotations

from msgspec import Struct


class ReaderState(Struct, frozen=True, kw_only=True):
    """All before byte `position` of the job's log was read. Everything it knows is about one `attempt`.

    `step` is that of the last line that had nothing else, such as `Epoch 3/10`; `columns` are those of the table whose
    rows follow. `refused` says by name which metrics are not read, and why; an empty name stands for all further ones.
    """

    position: int
    attempt: int = 1
    step: float | None = None
    columns: tuple[str, ...] = ()
    refused: dict[str, str] = {}
