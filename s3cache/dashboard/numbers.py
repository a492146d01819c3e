"""Numbers, sizes, times and money as texts, in the reader's language."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from django.utils import timezone
from django.utils.formats import date_format, get_format
from django.utils.translation import get_language
from django.utils.translation import gettext as _

__all__ = [
    "Signs",
    "ago",
    "clock_time",
    "clock_times",
    "duration",
    "money",
    "number",
    "percent",
    "short",
    "signs",
    "size",
]

#: What is shown where there is no number.
NOTHING: Final = "–"

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86_400.0

_SIZES: Final = ("B", "KB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True, slots=True)
class Signs:
    """
    How a language writes numbers.

    To ask for it takes longer than to write one: whoever writes many at once
    asks first, and hands it on.
    """

    separators: dict[int, str]
    percent: str


def signs() -> Signs:
    """Return how the reader's language writes numbers."""
    return Signs(_separators(), _("%(number)s%%"))


def _separators() -> dict[int, str]:
    language = get_language()
    return {
        ord(","): get_format("THOUSAND_SEPARATOR", language),
        ord("."): get_format("DECIMAL_SEPARATOR", language),
    }


def number(value: float | None, decimals: int = 0, written: Signs | None = None) -> str:
    """Return a number with its thousands apart."""
    if value is None:
        return NOTHING
    # Not by number_format(), which cuts what it does not show off, and takes
    # ten times as long: a page may have a thousand numbers.
    separators = _separators() if written is None else written.separators
    return f"{value:,.{decimals}f}".translate(separators)


def short(value: float) -> str:
    """Return a number in few characters: 950, 12.4 k, 3.1 M."""
    for unit, scale, limit in (("", 1, 1e4), (" k", 1e3, 1e6), (" M", 1e6, 1e9)):
        if abs(value) < limit:
            scaled = value / scale
            is_whole = scaled == int(scaled) or abs(scaled) >= 100
            return f"{number(scaled, 0 if is_whole else 1)}{unit}"
    return f"{number(value / 1e9)} G"


def percent(share: float | None, written: Signs | None = None) -> str:
    """Return a share of 1 in percent; all of it only if it is all of it."""
    if share is None:
        return NOTHING
    tenths = round(share * 1000)
    if share < 1 and tenths >= 1000:
        tenths = 999
    if share > 0 and tenths <= 0:
        tenths = 1
    written = written or signs()
    return written.percent % {"number": number(tenths / 10, 1, written)}


def size(count: int | None) -> str:
    """Return a number of bytes, in units of 1,024."""
    if count is None:
        return NOTHING
    value = float(count)
    for unit in _SIZES:
        if abs(value) < 1024 or unit == _SIZES[-1]:
            break
        value /= 1024
    decimals = 0 if unit == "B" or value >= 100 else 1
    return f"{number(value, decimals)} {unit}"


def duration(seconds: float | None, written: Signs | None = None) -> str:
    """Return how long something took."""
    if seconds is None:
        return NOTHING
    if seconds < 0.001:
        return f"{number(seconds * 1e6, 0, written)} µs"
    if seconds < 1:
        decimals = 0 if seconds >= 0.01 else 1
        return f"{number(seconds * 1e3, decimals, written)} ms"
    if seconds < 10 * _MINUTE:
        return _("%(number)s s") % {"number": number(seconds, 1, written)}
    return ago(seconds)


def ago(seconds: float | None) -> str:
    """Return about how much time has passed, or is left."""
    if seconds is None:
        return NOTHING
    seconds = max(seconds, 0.0)
    if seconds < 2 * _MINUTE:
        return _("%(number)s s") % {"number": number(seconds)}
    if seconds < 2 * _HOUR:
        return _("%(number)s min") % {"number": number(seconds / _MINUTE)}
    if seconds < 2 * _DAY:
        return _("%(number)s h") % {"number": number(seconds / _HOUR)}
    return _("%(number)s days") % {"number": number(seconds / _DAY)}


def money(dollars: float | None, written: Signs | None = None) -> str:
    """Return dollars, with as many digits as small sums need."""
    if dollars is None:
        return NOTHING
    decimals = 2 if dollars == 0 or abs(dollars) >= 0.01 else 4
    if 0 < abs(dollars) < 0.0001:
        decimals = 6
    return f"${number(dollars, decimals, written)}"


def clock_time(moment: float, *, seconds: bool = False) -> str:
    """Return a moment (epoch seconds) in the current time zone."""
    (found,) = clock_times([moment], seconds=seconds)
    return found


def clock_times(moments: Iterable[float], *, seconds: bool = False) -> list[str]:
    """Return the same of several, most of which are of the same days."""
    zone = timezone.get_current_timezone()
    days: dict[date, str] = {}
    found = []
    for moment in moments:
        at = datetime.fromtimestamp(moment, zone)
        day = at.date()
        if day not in days:
            days[day] = date_format(at, "SHORT_DATE_FORMAT")
        found.append(
            f"{days[day]} {at:%H:%M:%S}" if seconds else f"{days[day]} {at:%H:%M}"
        )
    return found
