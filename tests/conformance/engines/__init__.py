"""The databases that Django's tests are run on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

ALIASES = ("default", "other")


class Engine(ABC):
    """How to set up, lose and check the databases of one kind."""

    @abstractmethod
    def settings(self, folder: Path) -> dict[str, Any]:
        """Django settings: ``DATABASES`` for ``ALIASES``, and what they need.

        All files belong below ``folder``.
        """

    def lose_replica(self, connection: BaseDatabaseWrapper) -> None:  # noqa: B027
        """Have the local copy rebuilt from the store, where there is one."""

    def differences(
        self, connection: BaseDatabaseWrapper, folder: Path, *, from_nothing: bool
    ) -> list[str]:
        """How a second host sees this database differently, in words.

        With ``from_nothing`` that host starts without a replica, else it may
        go on from the one that it kept in ``folder``.
        """
        return []


#: Names of the command line; anything else is a dotted path to a class.
BY_NAME = {
    "sqlite": "tests.conformance.engines.sqlite.PlainSQLite",
    "s3cache.db": "tests.conformance.engines.s3cache_db.S3CacheDirectory",
    "hot": "tests.conformance.engines.s3cache_hot.S3CacheHot",
    "hot-locmem": "tests.conformance.engines.s3cache_hot.S3CacheHotElsewhere",
    "hot-files": "tests.conformance.engines.s3cache_hot.S3CacheHotInFiles",
}
