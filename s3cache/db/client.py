"""``dbshell``: SQLite's shell on the replica, to read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.db.backends.sqlite3.client import DatabaseClient as SQLiteClient

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper


class DatabaseClient(SQLiteClient):
    """Opens the replica read-only: what is written there is not committed."""

    connection: DatabaseWrapper

    def runshell(self, parameters: Iterable[str]) -> None:
        """Load what the replica lacks, which the shell knows nothing of."""
        self.connection.replica.load()
        super().runshell(parameters)

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], None]:
        """The command line of the shell."""
        path = str(settings_dict["NAME"])
        return [cls.executable_name, "-readonly", path, *parameters], None
