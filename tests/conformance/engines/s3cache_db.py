"""``s3cache.db``, its stores in local directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import global_settings
from django.db.backends.base.base import BaseDatabaseWrapper

from s3cache.db.base import DatabaseWrapper
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from tests.conformance.engines import ALIASES, Engine
from tests.conformance.verify import second_host_sees

#: Entries after which packs are written before the replica is lost. A rebuild
#: then reads packs and a tail, as a new host's does, and not all of the log.
PACK_AFTER = 50

#: Seconds to wait for the round that whoever commits does beside its work.
WAIT = 60.0


class S3CacheDirectory(Engine):
    def __init__(self) -> None:
        self._packed: dict[str, int] = {}

    def settings(self, folder: Path) -> dict[str, Any]:
        return {
            "DATABASES": {
                alias: {
                    "ENGINE": "s3cache.db",
                    "NAME": str(folder / f"{alias}.sqlite3"),
                    "OPTIONS": {"storage": f"bucket of {alias}"},
                    "TEST": {"NAME": str(folder / f"test-{alias}.sqlite3")},
                }
                for alias in ALIASES
            },
            "STORAGES": {
                **global_settings.STORAGES,
                **{
                    f"bucket of {alias}": {
                        "BACKEND": "django.core.files.storage.FileSystemStorage",
                        "OPTIONS": {"location": str(folder / f"bucket-{alias}")},
                    }
                    for alias in ALIASES
                },
            },
        }

    def lose_replica(self, connection: BaseDatabaseWrapper) -> None:
        if not isinstance(connection, DatabaseWrapper):
            raise TypeError(f"{connection.alias} is in no bucket")
        position = connection.position
        if position - self._packed.get(connection.alias, 0) >= PACK_AFTER:
            options = KeeperOptions(pack_after=PACK_AFTER)
            keep_now(connection.replica, options, wait=WAIT)
            self._packed[connection.alias] = position
        connection.rebuild_replica()

    def differences(
        self, connection: BaseDatabaseWrapper, folder: Path, *, from_nothing: bool
    ) -> list[str]:
        return second_host_sees(connection, folder, from_nothing=from_nothing)
