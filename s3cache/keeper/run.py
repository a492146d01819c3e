"""Running the keeper on a replica of this process."""

from __future__ import annotations

from dataclasses import replace

from s3cache.keeper.performer import KeeperPerformer
from s3cache.keeper.rounds import KeeperOptions, Kept, keep
from s3cache.replica.replica import Replica


def keep_now(
    replica: Replica, options: KeeperOptions | None = None, *, wait: float = 0.0
) -> Kept:
    """Do one round, in this thread.

    Raises ``OperationalError`` if another process of this host is at it for
    more than ``wait`` seconds, and ``StoreError`` like ``keep``.
    """
    options = replace(
        options or KeeperOptions(), signing_keys=replica.options.signing_keys
    )
    with replica.side.keeping.held(wait), KeeperPerformer(replica) as performer:
        kept = performer.run(keep(options))
    replica.reach("packed", kept.catalog)
    return kept
