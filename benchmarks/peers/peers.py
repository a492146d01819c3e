"""Who is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.peers import s3db, settings
from benchmarks.peers.django_peer import measure
from benchmarks.peers.figures import Told
from benchmarks.peers.settings import Place


@dataclass(frozen=True)
class Peer:
    """One of them.

    ``measure`` makes a round, in a process of its own, or raises ``Missing``.
    """

    name: str
    measure: Callable[[Place, float], Told]
    has_a_bucket: bool = False


_ours = partial(
    measure, anew=settings.in_a_new_replica, elsewhere=settings.on_another_host
)

ALL = (
    Peer("s3cache", partial(_ours, settings.s3cache), has_a_bucket=True),
    Peer(
        "s3cache, with records",
        partial(_ours, partial(settings.s3cache, records=True)),
        has_a_bucket=True,
    ),
    Peer("s3db.js", s3db.measure, has_a_bucket=True),
    Peer("s3db.js, with its cache", partial(s3db.measure, cache=True), True),
    Peer(
        "django-s3-sqlite",
        partial(
            measure,
            settings.s3_sqlite,
            saves_at_the_end=True,
            anew=settings.in_the_object,
        ),
        has_a_bucket=True,
    ),
    Peer("SQLite file", partial(measure, settings.sqlite)),
    Peer("SQLite in memory", partial(measure, settings.sqlite_in_memory)),
    Peer("PostgreSQL", partial(measure, settings.postgresql_server)),
    Peer("django-cachalot", partial(measure, settings.cachalot)),
    Peer("django-cacheops", partial(measure, settings.cacheops)),
)
