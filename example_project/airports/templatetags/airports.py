"""Template filters of the catalogue's pages."""

from __future__ import annotations

import datetime

from django import template

register = template.Library()


@register.filter
def whole(number: float | None) -> str:
    """Round and group by thousands, "14,965"; a dash if there is none."""
    return "–" if number is None else f"{round(number):,}"


@register.filter
def percent(part: float, all: float) -> int:
    """Return the share in per cent, rounded down so that only all is 100."""
    return int(100 * part / all) if all else 0


@register.filter
def latitude(degrees: float) -> str:
    """Return degrees as on a map, "50.0264° N"."""
    return f"{abs(degrees):.4f}°\N{NO-BREAK SPACE}{'S' if degrees < 0 else 'N'}"


@register.filter
def longitude(degrees: float) -> str:
    """Return degrees as on a map, "8.5431° E"."""
    return f"{abs(degrees):.4f}°\N{NO-BREAK SPACE}{'W' if degrees < 0 else 'E'}"


@register.filter
def clock(moment: datetime.datetime) -> str:
    """Return the time of day in the moment's own zone, "14:05 (UTC+05:30)"."""
    offset = f"{moment:%z}"
    return f"{moment:%H:%M} (UTC{offset[:3]}:{offset[3:5]})"
