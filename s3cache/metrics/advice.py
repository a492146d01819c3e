"""What is not as good as it could be, and what to try."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import msgspec
from django.utils.translation import gettext as _

from s3cache import conf
from s3cache.metrics.book import Book, Lately, Page
from s3cache.metrics.figures import Advice, Reads
from s3cache.metrics.series import sums_of
from s3cache.metrics.tally import Groups

__all__ = ["LEAST_READS", "TARGET", "advise", "warn"]

logger = logging.getLogger("s3cache.metrics")

#: Of fewer reads nothing is said.
LEAST_READS: Final = 100

#: The hit rate to aim for, and that from which on more of it is no help.
TARGET: Final = 0.8
_GOOD: Final = 0.9

#: Reads for one change from which on a model is worth caching.
_WORTH_IT: Final = 2

#: Rows from which on a model is very large: reads that are spread over so many
#: are seldom the same, and what is kept of them pushes other results out.
_LARGE: Final = 100_000

_EVERY: Final = 60.0

#: A model is named again when its hit rate has been low for so many minutes.
_AGAIN: Final = 60


def advise(
    database: str,
    models: Mapping[str, Lately],
    slow: Collection[str],
    rows_of: Callable[[str], int],
) -> Iterable[Advice]:
    """What to try, by the numbers of each model; ``slow`` are slow ones.

    ``rows_of`` tells about how many rows a model has, 0: nobody knows.
    """
    for model, one in models.items():
        reads = one.reads
        findings = _findings(model, reads, one.changes, model in slow, rows_of)
        for kind, message in findings:
            yield Advice(
                database=database,
                model=model,
                kind=kind,
                hit_rate=reads.hit_rate,
                message=message,
            )


def _findings(
    model: str,
    reads: Reads,
    changes: int,
    is_slow: bool,
    rows_of: Callable[[str], int],
) -> Iterable[tuple[str, str]]:
    if changes >= LEAST_READS and changes * _WORTH_IT > reads.number:
        yield (
            "writes",
            _(
                "%(model)s is written more often than it is worth caching: "
                "%(changes)d changes for %(reads)d reads. Add it to EXCLUDE, or "
                "define partitions, so that a write leaves other parts valid."
            )
            % {"model": model, "changes": changes, "reads": reads.number},
        )
        return
    if reads.number < LEAST_READS:
        return
    if not reads.asked:
        yield (
            "none",
            _(
                "%(model)s is not cached at all: every read goes past the cache. "
                "Is it excluded, or read by SQL that cannot be kept?"
            )
            % {"model": model},
        )
    elif not reads.answered:
        yield (
            "unrepeated",
            _(
                "Nobody reads the same of %(model)s twice: %(reads)d reads, no hit. "
                "Add it to EXCLUDE."
            )
            % {"model": model, "reads": reads.asked},
        )
    elif reads.hit_rate < TARGET and (rows := rows_of(model)) >= _LARGE:
        yield (
            "large",
            _(
                "%(model)s is very large, about %(rows)d rows, and only %(rate)d %% "
                "of its reads are hits: what is kept of it takes the room of others. "
                "Add it to EXCLUDE, or give it a cache of its own (S3Meta.cache)."
            )
            % {"model": model, "rows": rows, "rate": 100 * reads.hit_rate},
        )
    elif reads.hit_rate < 0.5:
        yield (
            "low",
            _(
                "Less than half of the reads of %(model)s are hits. Keep results "
                "longer (ttl), define partitions if it changes a lot, or give the "
                "cache more room."
            )
            % {"model": model},
        )
    elif reads.hit_rate < TARGET:
        yield (
            "low",
            _(
                "%(rate)d %% of the reads of %(model)s are hits, and 80 %% is the "
                "target: warm what is read first, and keep results longer (ttl)."
            )
            % {"model": model, "rate": 100 * reads.hit_rate},
        )
    elif reads.hit_rate > _GOOD and is_slow:
        yield (
            "slow",
            _(
                "%(model)s is cached well, and some of its queries are slow all the "
                "same: look at those, add an index, or use a faster cache."
            )
            % {"model": model},
        )


class _Seen(msgspec.Struct):
    """What was known of hit rates a minute ago, by database and model."""

    asked: dict[str, tuple[int, int]] = {}
    #: For how many minutes in which it was read enough it has been low.
    low: dict[str, int] = {}


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_seen: Final = msgspec.msgpack.Decoder(_Seen).decode


def _decode(page: Page | None) -> _Seen:
    """Nothing, if it is of another release."""
    with contextlib.suppress(msgspec.MsgspecError):
        if page is not None:
            return _decode_seen(page.content)
    return _Seen()


def warn(book: Book) -> None:
    """Log the models whose hit rate stays low; for a host, once a minute."""
    threshold = conf.settings().hit_rate_warning
    now = time.time()
    if threshold is None:
        return
    with book.writing(now) as writer:
        last = next((p for p in writer.pages("turn") if p.name == "hit rates"), None)
        if last is not None and abs(now - last.seen) < _EVERY:
            return
        seen = _decode(last)
        named = list(_judge(seen, _by_model(writer.totals("host")), threshold))
        writer.write_page("turn", "hit rates", _encode(seen))
    for model, rate in named:
        logger.warning(
            "%s: only %d %% of its reads are hits. `manage.py s3cache_stats` says "
            "what to try.",
            model,
            100 * rate,
        )


def _by_model(totals: Groups) -> dict[str, tuple[int, int]]:
    """Reads that asked the cache, and those that it answered."""
    sums = {}
    for key, numbers in totals.items():
        if key[0] == "read":
            reads, _ = sums_of({key: numbers})
            one = Reads(**reads)
            sums[f"{key[2]} ({key[1]})"] = one.asked, one.answered
    return sums


def _judge(
    seen: _Seen, models: Mapping[str, tuple[int, int]], threshold: float
) -> Iterable[tuple[str, float]]:
    for name, (asked, answered) in models.items():
        before = seen.asked.get(name, (0, 0))
        if before[0] > asked:
            before = 0, 0  # somebody has reset it
        new = asked - before[0]
        if new < LEAST_READS:
            continue  # wait for more
        rate = (answered - before[1]) / new
        seen.asked[name] = asked, answered
        seen.low[name] = seen.low.get(name, 0) + 1 if rate < threshold else 0
        if seen.low[name] % _AGAIN == 2:
            yield name, rate
