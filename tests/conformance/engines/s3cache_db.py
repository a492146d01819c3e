"""``s3cache.db``, its stores in local directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import global_settings
from django.db.backends.base.base import BaseDatabaseWrapper

from tests.conformance.engines import ALIASES, Engine
from tests.conformance.verify import second_host_sees


class S3CacheDirectory(Engine):
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
        connection.rebuild_replica()  # type: ignore[attr-defined]

    def differences(
        self, connection: BaseDatabaseWrapper, folder: Path, *, from_nothing: bool
    ) -> list[str]:
        return second_host_sees(connection, folder, from_nothing=from_nothing)
