"""Texts and small pictures for the templates of the statistics."""

from __future__ import annotations

from collections.abc import Iterable

from django import template
from django.contrib.admin.utils import quote
from django.utils.html import format_html
from django.utils.safestring import SafeString

from s3cache.dashboard import numbers
from s3cache.metrics.figures import Reads

register = template.Library()

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
    texts = list(texts)
    return format_html('<td class="s3c-number">{}</td>' * len(texts), *texts)


@register.filter
def s3c_rate(reads: Reads) -> SafeString:
    """Return the hit rate with its bar as a cell, "–" if nothing was asked."""
    rate = reads.hit_rate if reads.asked else None
    return format_html(
        '<td class="s3c-number s3c-rate">{}{}</td>',
        numbers.percent(rate),
        s3c_bar(rate),
    )


@register.filter
def s3c_reads(reads: Reads) -> SafeString:
    """Return the hit rate, and the numbers that it is made of, as cells."""
    counts = reads.number, reads.answered, reads.miss, reads.bypass
    return s3c_rate(reads) + s3c_cells(map(numbers.number, counts))


@register.simple_tag
def s3c_bar(share: float | None, kind: str = "") -> SafeString:
    """Return a bar, full at 1; the number itself stands beside it."""
    width = 100 * min(max(share or 0.0, 0.0), 1.0)
    return format_html(
        '<svg class="s3c-bar {}" viewBox="0 0 100 6" preserveAspectRatio="none" '
        'aria-hidden="true"><rect width="{}" height="6"/></svg>',
        kind,
        f"{width:.1f}",
    )


@register.filter
def s3c_share(part: float | None, whole: float | None) -> float | None:
    """Return `part` as a share of `whole`, None where that says nothing."""
    return part / whole if part is not None and whole else None
