"""Cron expressions: the moments at which a clock in a time zone shows them.

cronsim reads the expression and finds the next time on a clock without a time zone; the zone is added here. Its own way
with zones misses quarter hours where the clock jumps by 30 minutes (Lord Howe).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
PROBE = timedelta(hours=12)
"""No zone changes its clock twice within this time."""
WIDEST = 9 * 366 * 86400.0
"""Seconds. An expression with 29 February fires at least this often."""


class Cron:
    """A cron expression in a time zone. A fixed time that the clock skips is due right after the gap, and one that it
    shows twice is due at the first. If minute or hour begin with `*`, every moment counts at which the clock shows a
    matching time, as in Debian's cron. Raises ValueError for an expression or a zone that is not valid."""

    def __init__(self, text: str, zone: str = "UTC") -> None:
        self.fields = fields(text)
        self.zone = time_zone(zone)
        minute, hour, *_ = self.fields.split()
        self.fixed = not (minute.startswith("*") or hour.startswith("*"))
        if next(self.after(0.0), None) is None:
            raise ValueError(f"'{text}' never fires: no date matches it")

    def after(self, moment: float) -> Iterator[float]:
        """Yield the moments after `moment` (seconds since the epoch) at which it is due, in order, without end."""
        last = moment
        for due in (self._fixed if self.fixed else self._flowing)(moment):
            if due > last:
                last = due
                yield due

    def newest(self, after: float, until: float, most: int) -> list[float]:
        """Return the newest moments after `after` and not after `until`, at least `most` of them if there are so many,
        in order. Looks back no further than that needs."""
        window = 3600.0
        while True:
            begin = max(after, until - window)
            found = [*_until(self.after(begin), until)]
            if begin == after or len(found) >= most or window > WIDEST * most:
                return found
            window *= 4

    def _fixed(self, begin: float) -> Iterator[float]:
        for clock in CronSim(self.fields, self._clock(begin)):
            due = clock.replace(tzinfo=self.zone)
            moment = due.timestamp()
            yield moment if self._clock(moment) == clock else self._gap_end(due)

    def _gap_end(self, skipped: datetime) -> float:
        """The first moment after the gap that a skipped time is in. By the offset before the gap, the time would come
        after it, and by the offset after the gap before it."""
        return self._change(skipped.replace(fold=1).timestamp() - 1, skipped.timestamp())

    def _flowing(self, begin: float) -> Iterator[float]:
        """Walk from one change of the offset to the next: in between, the clock runs evenly."""
        clock = self._clock(begin)
        while (due := next(CronSim(self.fields, clock), None)) is not None:
            moment = due.replace(tzinfo=timezone(self._offset(begin))).timestamp()
            change = self._first_change(begin, moment)
            if change is None:
                yield moment
                begin, clock = moment, due
            else:
                begin, clock = change, self._clock(change) - timedelta(seconds=1)  # the change itself may be due

    def _first_change(self, begin: float, end: float) -> float | None:
        """The first moment after `begin` and not after `end` at which the offset is another one; None if it stays."""
        step = PROBE.total_seconds()
        while begin < end:
            probe = min(begin + step, end)
            if self._offset(probe) != self._offset(begin):
                return self._change(begin, probe)
            begin = probe
        return None

    def _change(self, before: float, after: float) -> float:
        """The second at which the offset changes between two moments."""
        low, high, old = int(before), int(after), self._offset(before)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset(middle) == old else (low, middle)
        return float(high)

    def _offset(self, moment: float) -> timedelta:
        return self._local(moment).utcoffset() or timedelta()

    def _local(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, self.zone)

    def _clock(self, moment: float) -> datetime:
        """What the zone's clock shows."""
        return self._local(moment).replace(tzinfo=None, fold=0)


def _until(moments: Iterator[float], end: float) -> Iterator[float]:
    for moment in moments:
        if moment > end:
            return
        yield moment


def fields(text: str) -> str:
    """Return the five fields of an expression. Raises ValueError for anything else."""
    written = ALIASES.get(text.strip().lower(), text)
    if written.startswith("@"):
        raise ValueError(f"'{text}' is not known; write five fields, or one of {', '.join(ALIASES)}")
    count = len(written.split())
    if count != 5:
        raise ValueError(f"'{text}' has {count} fields instead of 5: minute, hour, day of month, month, day of week")
    try:
        CronSim(written, datetime(2026, 1, 1))
    except CronSimError as error:
        field = str(error).removeprefix("Bad ").replace("-", " ")
        raise ValueError(f"'{text}' never fires: its {field} is not valid, or no date matches it") from error
    return written


def time_zone(name: str) -> ZoneInfo:
    """Return the zone with this name. Raises ValueError if there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"'{name}' is not a known time zone; write a name such as Europe/Berlin or UTC") from error


def upcoming(cron: Cron, moment: float, count: int) -> list[float]:
    """Return the next moments after this one."""
    return list(islice(cron.after(moment), count))
