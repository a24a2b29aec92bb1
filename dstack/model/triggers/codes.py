"""Why a tick started no run, or a trigger starts none."""

from __future__ import annotations

from dstack.model.text.code import Code


class TriggerCode(Code):
    """The codes of ticks and pauses that are not those of errors."""

    RUNNING = "running", "The run before has not ended, and `overlap` says what happens then."
    MISSED = "missed", "The server was down at that time, and `missed` or `deadline` excludes making up for it."
    QUEUE_FULL = "queue-full", "Too many ticks wait for the run before."
    SKIP_MESSAGE = "skip-message", "The commit's message contains `[skip dstack]`."
    OTHER_PATHS = "other-paths", "The push changed none of the trigger's `paths`."
    SUPERSEDED = "superseded", "The branch has a newer commit, and the remote gives out no older one."
    BY_HAND = "by-hand", "Somebody paused the trigger."
    PAUSED = "paused", "The trigger was paused before its turn came."
    MAX_FAILURES = "max-failures", "The trigger failed as often in a row as `max-failures` allows, and was paused."
