"""When cron expressions are due, compared with an oracle that walks minute by minute along the clock of a zone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from functools import cache
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

import pytest

from dstack.model.triggers.cron import Cron

BEGIN, END = datetime(2020, 1, 1, tzinfo=timezone.utc), datetime(2030, 1, 1, tzinfo=timezone.utc)
EXPRESSIONS = (
    *("0 2 * * *", "30 2 * * *", "15 0,1,2,3 * * *", "45 1-3 * * 0", "0 0 * * *", "10 23 1 * 6", "59 2 * * 7"),
    *("*/15 * * * *", "*/10 2 * * *", "*/15 3 * * *", "7 * * * *", "20 */2 * * *", "* 0-3 * * *", "0 * 1 * 0"),
)
SAMPLED = ("Australia/Lord_Howe", "Europe/Berlin", "Africa/Casablanca", "America/Santiago", "Antarctica/Troll")
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
MINUTE = timedelta(minutes=1)


def parsed(expression: str) -> list[set[int]]:
    """Return the values that each field allows."""
    return [
        {value for term in field.split(",") for value in values(term, low, high)}
        for field, (low, high) in zip(expression.split(), RANGES, strict=True)
    ]


def values(term: str, low: int, high: int) -> Iterator[int]:
    span, _, step = term.partition("/")
    first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
    return iter(range(int(first), int(last or first) + 1, int(step or 1)))


def matches(clock: datetime, expression: str, allowed: Sequence[set[int]]) -> bool:
    """Whether the clock's time fits, by crontab(5): of day and weekday one is enough if both are limited."""
    if clock.minute not in allowed[0] or clock.hour not in allowed[1] or clock.month not in allowed[3]:
        return False
    day, weekday = clock.day in allowed[2], bool({clock.isoweekday(), clock.isoweekday() % 7} & allowed[4])
    _, _, days, _, weekdays = expression.split()
    return (day and weekday) if days.startswith("*") or weekdays.startswith("*") else (day or weekday)


def walked(expression: str, zone: ZoneInfo, begin: datetime, end: datetime) -> list[float]:
    """Return the due moments after `begin` up to `end`: look at the clock once a minute. A fixed time is due when the
    clock first shows it or something later; the others whenever the clock shows them."""
    fixed = not any(field.startswith("*") for field in expression.split()[:2])
    allowed, found = parsed(expression), []
    shown = begin.astimezone(zone).replace(tzinfo=None)
    moment = begin
    while (moment := moment + MINUTE) <= end:
        clock = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        if not fixed:
            due = matches(clock, expression, allowed)
        else:
            due = False
            while shown < clock:
                shown += MINUTE
                due = due or matches(shown, expression, allowed)
        if due:
            found.append(moment.timestamp())
    return found


@cache
def changes(name: str) -> tuple[tuple[datetime, timedelta], ...]:
    """Return when the zone's clock changes, to six hours, and to what offset."""
    zone, found, moment = ZoneInfo(name), [], BEGIN
    before = BEGIN.astimezone(zone).utcoffset()
    while moment < END:
        offset = moment.astimezone(zone).utcoffset()
        if offset != before:
            found.append((moment, offset or timedelta()))
        before, moment = offset, moment + timedelta(hours=6)
    return tuple(found)


def check(expression: str, name: str, begin: datetime, end: datetime) -> None:
    cron, last = Cron(expression, name), end.timestamp()
    found = []
    for moment in cron.after(begin.timestamp()):
        if moment > last:
            break
        found.append(moment)
    assert found == walked(expression, ZoneInfo(name), begin, end), f"{expression} in {name} from {begin}"


def windows(name: str, most: int) -> list[tuple[datetime, datetime]]:
    """Return days around changes of the clock, and one without."""
    chosen = random.Random(name).sample(changes(name), min(most, len(changes(name))))
    days = [(moment - timedelta(hours=30), moment + timedelta(hours=30)) for moment, _ in chosen]
    return [*days, (datetime(2026, 2, 27, tzinfo=timezone.utc), datetime(2026, 3, 2, tzinfo=timezone.utc))]


@pytest.mark.parametrize("name", SAMPLED)
def test_every_time_is_due_once_around_the_changes_of_a_clock(name: str) -> None:
    for begin, end in windows(name, 2):
        for expression in EXPRESSIONS:
            check(expression, name, begin, end)


@pytest.mark.long
def test_every_time_is_due_once_in_all_zones() -> None:
    """Zones whose clocks did the same in these ten years are one."""
    kinds: dict[object, str] = {}
    for name in sorted(available_timezones() - {"localtime", "Factory"}):
        first = BEGIN.astimezone(ZoneInfo(name)).utcoffset()
        kinds.setdefault((first, changes(name)), name)
    assert len(kinds) > 50
    for name in kinds.values():
        for begin, end in windows(name, 99):
            for expression in EXPRESSIONS:
                check(expression, name, begin, end)


@pytest.mark.long
@pytest.mark.parametrize("name", ["Australia/Lord_Howe", "Europe/Berlin", "Africa/Casablanca"])
def test_ten_years_minute_by_minute(name: str) -> None:
    for expression in ("30 2 * * *", "*/15 2,3 * * *"):
        check(expression, name, BEGIN, END)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_server_that_starts_anywhere_finds_the_same_times(name: str) -> None:
    """Each moment of the walk may be the one at which the schedule is read again."""
    begin = changes(name)[0][0] - timedelta(hours=12)
    for expression in EXPRESSIONS[:9]:
        cron = Cron(expression, name)
        expected = [*islice(cron.after(begin.timestamp()), 40)]
        for minutes in range(0, 24 * 60, 10):
            start = begin.timestamp() + minutes * 60
            after = [moment for moment in expected if moment > start]
            assert [*islice(cron.after(start), 3)][: len(after)] == after[:3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0 30 2 *", "no date matches it"),
        ("0 0 31 4,6,9,11 *", "no date matches it"),
        ("61 * * * *", "minute"),
        ("* * * *", "4 fields instead of 5"),
        ("0 * * * * *", "6 fields instead of 5"),
        ("", "0 fields instead of 5"),
        ("@reboot", "is not known"),
        ("; rm -rf /", "4 fields"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cron(text)


@pytest.mark.parametrize("name", ["", "Europe", "Mars/Base", "../etc/passwd", "/etc/passwd", "a\0b", "Europe/berlinn"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a known time zone"):
        Cron("@daily", name)


def test_only_the_newest_times_are_looked_for() -> None:
    cron, now = Cron("* * * * *"), datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()

    assert cron.newest(now - 3 * 86400, now, 1)[-1] == now
    assert len(cron.newest(0, now, 1)) == 60
    assert len(cron.newest(now - 3600 * 24, now, 10_000)) == 24 * 60
    assert Cron("0 0 29 2 *").newest(0, now, 1) == [datetime(2024, 2, 29, tzinfo=timezone.utc).timestamp()]
    assert cron.newest(now, now, 5) == cron.newest(now + 60, now, 5) == []
