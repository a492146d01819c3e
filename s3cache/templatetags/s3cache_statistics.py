"""Texts and small pictures for the templates of the statistics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from django import template
from django.contrib.admin.utils import quote
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from s3cache.dashboard import numbers
from s3cache.metrics.figures import Reads

register = template.Library()

#: What no number has in it.
_BETWEEN: Final = "\x1f"

for _format in (
    numbers.ago,
    numbers.clock_time,
    numbers.duration,
    numbers.money,
    numbers.number,
    numbers.percent,
    numbers.short,
    numbers.size,
):
    register.filter(f"s3c_{_format.__name__}", _format)

register.filter("s3c_quote", quote)


@register.filter
def s3c_clock_seconds(moment: float) -> str:
    """Return a moment with its seconds."""
    return numbers.clock_time(moment, seconds=True)


@register.filter
def s3c_cells(texts: Iterable[str]) -> SafeString:
    """Return numbers as cells of a table: of a long one, in little time."""
    # Escaped all at once: that takes longer than to write them.
    escaped = escape(_BETWEEN.join(texts))
    cells = escaped.replace(_BETWEEN, '</td><td class="s3c-number">')
    return mark_safe(f'<td class="s3c-number">{cells}</td>')  # noqa: S308


@register.filter
def s3c_rate(reads: Reads) -> SafeString:
    """Return the hit rate with its bar as a cell, "–" if nothing was asked."""
    rate = reads.hit_rate if reads.asked else None
    text = escape(numbers.percent(rate))
    return mark_safe(  # noqa: S308
        f'<td class="s3c-number s3c-rate">{text}{_bar(rate)}</td>'
    )


@register.simple_tag
def s3c_bar(share: float | None, kind: str = "") -> SafeString:
    """Return a bar, full at 1; the number itself stands beside it."""
    return mark_safe(_bar(share, escape(kind)))  # noqa: S308


def _bar(share: float | None, kind: str = "") -> str:
    width = 100 * min(max(share or 0.0, 0.0), 1.0)
    return (
        f'<svg class="s3c-bar {kind}" viewBox="0 0 100 6" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect width="{width:.1f}" height="6"/></svg>'
    )


@register.filter
def s3c_share(part: float | None, whole: float | None) -> float | None:
    """Return `part` as a share of `whole`, None where that says nothing."""
    return part / whole if part is not None and whole else None
