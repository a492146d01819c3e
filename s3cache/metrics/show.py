"""The functions that return figures; see ``s3cache.metrics.figures``.

None of them asks the store, and none raises because a source is missing: what
is not known is 0, None or left out.
"""

from __future__ import annotations

import time
from typing import Final

from s3cache import conf
from s3cache.metrics.figures import (
    Advice,
    History,
    Model,
    Money,
    QueryFigures,
    ReadFigures,
    Reads,
    Scope,
    SlowQuery,
    Snapshot,
    Span,
)
from s3cache.results.counters import counters

__all__ = [
    "advice",
    "history",
    "money",
    "reset",
    "slow_queries",
    "snapshot",
    "top_queries",
]

_STARTED: Final = time.time()

_STEPS: Final[dict[Span, tuple[float, float]]] = {
    "day": (60.0, 86_400.0),
    "month": (3600.0, 30 * 86_400.0),
}


def snapshot(scope: Scope = "fleet", *, database: str | None = None) -> Snapshot:
    """All figures of this moment, of one database or of all."""
    aliases = conf.bucket_aliases()
    alias = database or (aliases[0] if aliases else "")
    reads: list[ReadFigures] = []
    models: dict[str, Reads] = {}
    for (label, action), counts in sorted(counters.read().items()):
        some = Reads(*(getattr(counts, name) for name in Reads.__slots__))
        reads.append(
            ReadFigures(database=alias, model=label, action=action, reads=some)
        )
        models[label] = models.get(label, Reads()) + some
    return Snapshot(
        scope=scope,
        taken_at=time.time(),
        since=_STARTED,
        reads=tuple(reads),
        models=tuple(
            Model(database=alias, model=label, reads=some)
            for label, some in models.items()
        ),
    )


def history(
    span: Span = "day",
    scope: Scope = "fleet",
    *,
    database: str | None = None,
    model: str | None = None,
) -> History:
    """What happened by the minute of a day, or by the hour of a month.

    Of one model: its reads and changes, by the hour for both spans. The scope
    "process" has no history of its own; it is answered with its host's.
    """
    step, length = _STEPS[span]
    end = time.time()
    return History(scope=scope, span=span, step=step, start=end - length, end=end)


def money(scope: Scope = "fleet", *, database: str | None = None) -> Money:
    """What was spent and saved, and what a month costs at this rate."""
    return Money(scope=scope, source="")


def advice(*, database: str | None = None) -> tuple[Advice, ...]:
    """What to try, the worst first; of all hosts."""
    return ()


def top_queries(
    limit: int = 20, *, database: str | None = None
) -> tuple[QueryFigures, ...]:
    """The statements that this process read most often, the first first."""
    return ()


def slow_queries(
    limit: int = 20, *, database: str | None = None
) -> tuple[SlowQuery, ...]:
    """The slowest reads of this process lately, the slowest first."""
    return ()


def reset(*, database: str | None = None) -> None:
    """Count from 0 again, on this host; the history stays."""
