"""Keeping beside other work: every now and then, by who commits."""

from __future__ import annotations

import logging
import threading

from s3cache.keeper.rounds import PACK_AFTER, KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.replica.replica import Replica

logger = logging.getLogger("s3cache.keeper")

#: Some entries have come since the last round was due.
_OPTIONS = KeeperOptions(pack_after=PACK_AFTER // 2)


def keep_after(replica: Replica, number: int) -> None:
    """Have a round done if entry ``number``, which we created, says so.

    It is whoever creates every 256th entry, on whatever host: nobody has to
    be asked, no process has to live on, and a database in which nothing
    happens costs nothing. The thread is not a daemon: a process that ends now
    finishes its round first.
    """
    if number % PACK_AFTER:
        return
    thread = threading.Thread(target=_keep, args=(replica,), name="s3cache-keep")
    try:
        thread.start()
    except RuntimeError as error:  # the interpreter is ending
        logger.info("%s is not packed now: %s", replica.store.name, error)


def _keep(replica: Replica) -> None:
    try:
        kept = keep_now(replica, _OPTIONS)
    except Exception:
        # Who commits has been answered, and the next round goes on.
        logger.warning("%s was not packed", replica.store.name, exc_info=True)
        return
    logger.info(
        "%s: packed to entry %d (%d packs written), trimmed to %d, %d objects deleted",
        replica.store.name,
        kept.catalog,
        kept.packs_written,
        kept.trimmed,
        kept.deleted,
    )
