"""``manage.py s3cache_load``: all packs that this host lacks, now."""

from __future__ import annotations

import json
from typing import Any

from tqdm import tqdm

from s3cache.db.base import DatabaseWrapper
from s3cache.management.base import BucketCommand


class Command(BucketCommand):
    help = (
        "Makes this host's replica if there is none, brings it up to date, and loads "
        "all rows that it would load when somebody needs them. For images, and before "
        "a new host gets its first request."
    )

    def handle(self, *, database: str | None, verbosity: int, **options: Any) -> None:
        told: dict[str, dict[str, int]] = {}
        for alias, connection in self.chosen(database).items():
            with self.about(alias):
                packs = load(connection, alias, verbosity)
                told[alias] = {"number": connection.position, "packs": packs}
            if verbosity and not options["json"]:
                self.stdout.write(
                    f"{alias}: the replica has all rows at entry "
                    f"{connection.position}; {packs} packs were loaded."
                )
        if options["json"]:
            self.stdout.write(json.dumps(told))


def load(connection: DatabaseWrapper, alias: str, verbosity: int) -> int:
    """Load all, with a bar on a terminal; how many packs that took."""
    packs = 0
    with tqdm(
        desc=f"{alias}: loading",
        unit=" packs",
        leave=False,
        disable=True if verbosity < 1 else None,
    ) as bar:

        def tell(left: int) -> None:
            nonlocal packs
            packs += 1
            bar.total = packs + left
            bar.update()

        replica = connection.replica
        replica.on_load = tell
        try:
            connection.catch_up()
            replica.load()
        finally:
            replica.on_load = None
    return packs
