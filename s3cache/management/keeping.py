"""What commands that run the keeper have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from django.core.management.base import CommandError
from django.db import OperationalError

from s3cache.keeper.rounds import KeeperOptions, Kept
from s3cache.keeper.run import keep_now
from s3cache.management.base import BucketCommand

#: Seconds to wait for another process of this host that does the same.
WAIT: Final = 600.0


class KeepingCommand(BucketCommand):
    """A command that runs a round of the keeper on each database."""

    def keep(
        self,
        database: str | None,
        how: KeeperOptions,
        told: Callable[[Kept], str],
        *,
        verbosity: int,
        as_json: bool,
    ) -> dict[str, Kept]:
        """Run the rounds, and tell of each by ``told``, or of all as JSON."""
        kept: dict[str, Kept] = {}
        for alias, connection in self.chosen(database).items():
            try:
                connection.catch_up()
                kept[alias] = keep_now(connection.replica, how, wait=WAIT)
            except OperationalError as error:
                raise CommandError(f"{alias}: {error}") from error
            if verbosity and not as_json:
                self.stdout.write(f"{alias}: {told(kept[alias])}")
        if as_json:
            said = {alias: for_programs(one) for alias, one in kept.items()}
            self.stdout.write(json.dumps(said))
        return kept


def for_programs(kept: Kept) -> dict[str, Any]:
    """``kept`` as JSON has it."""
    return {**asdict(kept), "backlog": kept.backlog}
