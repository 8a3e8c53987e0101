"""Written moments to the day, month or year in which they lie. Knows forms of dates; no files and no tables.

Three forms are read, and nothing is guessed: Twitter's own (`Wed Oct 10 20:19:24 +0000 2018`), ISO 8601 with or without
time and zone, and seconds or milliseconds since 1970 as digits. A form such as 10/11/2018 means two days to two people.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Literal, get_args

from edgewren.errors import UsageError

Period = Literal["day", "month", "year"]
PERIODS: tuple[Period, ...] = get_args(Period)

_LENGTH: dict[Period, int] = {"day": 10, "month": 7, "year": 4}
_MONTHS = {"Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6}
_MONTHS |= {"Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12}
_TWITTER = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d{2}) (\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2}) (\d{4})", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def period_of(text: str, period: Period, zone: tzinfo = UTC) -> str | None:
    """Return the period that a moment lies in, such as "2018-10-10", "2018-10" or "2018"; None if it cannot be read.

    A moment with a zone of its own is brought to `zone`; one without, and a date without time, is taken as it stands.
    """
    moment = _moment(text.strip())
    if moment is None:
        return None
    if isinstance(moment, datetime) and moment.tzinfo is not None and moment.tzinfo is not zone:
        try:
            moment = moment.astimezone(zone)
        except OverflowError:  # the first and last day that Python knows
            return None
    return moment.isoformat()[: _LENGTH[period]]


def zone_named(name: str) -> tzinfo:
    """Return a time zone by its IANA name, such as "America/New_York".

    Raises:
        UsageError: this machine knows no such zone.
    """
    if name.upper() == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"Unknown time zone {name!r}. Expected a name such as UTC or America/New_York (on Windows: pip install "
            "tzdata)."
        ) from error


def _moment(text: str) -> date | datetime | None:
    found = _TWITTER.fullmatch(text)
    try:
        if found is not None:
            month, day, hour, minute, second, sign, zone_h, zone_min, year = found.groups()
            if month not in _MONTHS:
                return None
            offset = timedelta(hours=int(zone_h), minutes=int(zone_min)) * (-1 if sign == "-" else 1)
            zone = UTC if not offset else timezone(offset)
            return datetime(
                int(year), _MONTHS[month], int(day), int(hour), int(minute), min(int(second), 59), tzinfo=zone
            )
        if text.isascii() and text.isdigit() and len(text) != 8:  # eight digits are ISO's 20181010
            return _since_1970(text)
        if "-" not in text and not text[:8].isdigit():  # "2018W41" and the like are read nowhere else
            return None
        return datetime.fromisoformat(text) if len(text) > 10 else date.fromisoformat(text)
    except (ValueError, OverflowError):
        return None


def _since_1970(digits: str) -> datetime | None:
    """Seconds have 9 or 10 digits since 1973, milliseconds 12 or 13; ids of posts have more."""
    if len(digits) in (9, 10):
        return _EPOCH + timedelta(seconds=int(digits))
    if len(digits) in (12, 13):
        return _EPOCH + timedelta(milliseconds=int(digits))
    return None
