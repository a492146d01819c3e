"""Writing records beside other work, some seconds after a commit."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from django.db import OperationalError

from s3cache.exceptions import StoreError
from s3cache.records.rendering import has_models
from s3cache.records.run import always, record_now
from s3cache.records.writing import RecordOptions
from s3cache.replica.replica import Replica

logger = logging.getLogger("s3cache.records")

#: Seconds from a commit to its records. What else is committed meanwhile is
#: written with it: of a row that changes all the time one record is written
#: in so many seconds.
DELAY = 10.0

#: So many records are still written by a process that ends; others are left
#: to the next commit, or to ``s3cache_compact``.
AT_THE_END = 100

#: The replicas that have a thread waiting, with the process it is in: after
#: a fork there is none.
_waiting: dict[Path, int] = {}


def record_after(replica: Replica) -> None:
    """Have records written some seconds from now.

    By a thread that ends with it, and none is begun while one waits: a
    database in which nothing happens costs nothing.
    """
    pid = os.getpid()
    if _waiting.get(replica.path) == pid:
        return
    if not has_models(default=replica.options.records):
        return
    _waiting[replica.path] = pid
    thread = threading.Thread(
        target=_wait_and_record, args=(replica,), name="s3cache-record"
    )
    try:
        thread.start()
    except RuntimeError as error:  # the interpreter is ending
        _waiting.pop(replica.path, None)
        logger.info("%s has no records of now: %s", replica.store.name, error)


def _wait_and_record(replica: Replica) -> None:
    main = threading.main_thread()
    main.join(DELAY)
    # From here on another commit has a thread of its own.
    _waiting.pop(replica.path, None)
    options, is_wanted = RecordOptions(), main.is_alive
    if not main.is_alive():
        options, is_wanted = RecordOptions(at_most=AT_THE_END), always
    try:
        done = record_now(replica, options, wait=DELAY, is_wanted=is_wanted)
    except (StoreError, OperationalError) as error:
        logger.warning("%s: records were not written: %s", replica.store.name, error)
        return
    except Exception:
        # Who commits has been answered, and the next round does it all.
        logger.exception("%s: records were not written", replica.store.name)
        return
    for key in done.foreign:
        logger.warning(
            "%s was changed by somebody else; it is left as it is. "
            "`manage.py s3cache_verify` says more.",
            key,
        )
    for key, why in done.unreadable.items():
        logger.warning("%s cannot be written: %s", key, why)
    logger.info(
        "%s: records are written to entry %d of %d (%d written, %d removed)",
        replica.store.name,
        done.number,
        done.newest,
        done.written,
        done.removed,
    )
