"""Writing records from a replica of this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from django.db import connections

from s3cache import conf
from s3cache.keeper.verify import Finding
from s3cache.records.check import verify_records
from s3cache.records.performer import RecordPerformer
from s3cache.records.rendering import Rendering, renderings
from s3cache.records.writing import Recorded, RecordOptions, write_records
from s3cache.replica.replica import Replica


def renderings_of(replica: Replica) -> Mapping[str, Rendering]:
    """How the rows of this replica become records, by lower-case table name.

    Empty if the settings name no database whose replica it is.
    """
    for alias in list(connections.settings):
        if not conf.lives_in_bucket(alias):
            continue
        connection = connections[alias]
        if Path(connection.settings_dict["NAME"]).resolve() == replica.path:
            return renderings(connection, default=replica.options.records)
    return {}


def always() -> bool:
    """What lets a round go on to its end."""
    return True


def record_now(
    replica: Replica,
    options: RecordOptions | None = None,
    *,
    wait: float = 0.0,
    is_wanted: Callable[[], bool] = always,
) -> Recorded:
    """Write the records that are due, in this thread.

    No request where nothing has records. Raises ``OperationalError`` if
    another process of this host is at it for more than ``wait`` seconds, and
    ``StoreError`` like ``write_records``, or as soon as ``is_wanted`` says
    no.
    """
    options = replace(
        options or RecordOptions(), signing_keys=replica.options.signing_keys
    )
    known = renderings_of(replica)
    if not known:
        return Recorded()
    with (
        replica.side.recording.held(wait),
        RecordPerformer(replica, known, is_wanted) as performer,
    ):
        recorded = performer.run(write_records(options))
    replica.reach("recorded", recorded.number)
    return recorded


def verify_records_now(replica: Replica) -> list[Finding]:
    """Compare records with the rows of ``replica``; nothing is changed."""
    known = renderings_of(replica)
    if not known:
        return []
    with RecordPerformer(replica, known, always) as performer:
        return performer.run(verify_records(replica.options.signing_keys))
