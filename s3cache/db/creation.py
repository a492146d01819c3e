"""Test databases: a replica and a store of their own, in directories.

A test run never touches the store that the settings name.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db.backends.sqlite3 import creation

from s3cache.db.behind import forget_behind
from s3cache.replica.file import delete_file
from s3cache.replica.replica import forget_replica

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper

#: The key of ``settings_dict`` that puts a directory in the store's place.
STORE_DIRECTORY = "STORE_DIRECTORY"


class DatabaseCreation(creation.DatabaseCreation):
    """Creates, clones and destroys test databases."""

    connection: DatabaseWrapper

    @staticmethod
    def is_in_memory_db(database_name: object) -> bool:
        """Never: a replica is a file."""
        return False

    def _get_test_db_name(self) -> str:
        settings = self.connection.settings_dict
        if settings["TEST"]["NAME"]:
            return str(settings["TEST"]["NAME"])
        name = Path(settings["NAME"])
        return str(name.with_name(f"test_{name.name}"))

    def _create_test_db(
        self, verbosity: int, autoclobber: bool, keepdb: bool = False
    ) -> str:
        name = self._get_test_db_name()
        self.connection.close()
        # In place: threads get their connections from the same dictionary.
        self.connection.settings_dict[STORE_DIRECTORY] = _store_of(name)
        if not keepdb:
            self._make_way(name, verbosity, autoclobber)
        return name

    def _make_way(self, name: str, verbosity: int, autoclobber: bool) -> None:
        if not any(path.exists() for path in _paths_of(name)):
            return
        if verbosity >= 1:
            self.log(
                f"Destroying old test database for alias {self.connection.alias!r} "
                f"({name!r})..."
            )
        if not autoclobber:
            confirm = input(
                f"Type 'yes' if you would like to try deleting the test database "
                f"'{name}', or 'no' to cancel: "
            )
            if confirm != "yes":
                self.log("Tests cancelled.")
                sys.exit(1)
        _delete(name)

    def get_test_db_clone_settings(self, suffix: str) -> dict[str, Any]:
        """The settings of the clone for one process of a parallel run."""
        settings = self.connection.settings_dict
        original = Path(settings["NAME"])
        name = str(original.with_stem(f"{original.stem}_{suffix}"))
        return {**settings, "NAME": name, STORE_DIRECTORY: _store_of(name)}

    def _clone_test_db(self, suffix: str, verbosity: int, keepdb: bool = False) -> None:
        # The log is cloned, by hard links since objects never change, and the
        # clone's replica follows it. Copying the live replica's file would
        # drop SQLite's locks on it.
        source = str(self.connection.settings_dict[STORE_DIRECTORY])
        clone = self.get_test_db_clone_settings(suffix)
        if keepdb and Path(clone[STORE_DIRECTORY]).exists():
            return
        self._make_way(clone["NAME"], verbosity, autoclobber=True)
        shutil.copytree(source, clone[STORE_DIRECTORY], copy_function=_link)

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        _delete(test_database_name)

    def setup_worker_connection(self, _worker_id: int) -> None:
        """Have this process of a parallel run use its clone."""
        self.connection.settings_dict.update(
            self.get_test_db_clone_settings(str(_worker_id))
        )
        self.connection.close()


def _store_of(name: str) -> str:
    return f"{name}.store"


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target


def _paths_of(name: str) -> Iterator[Path]:
    yield Path(name)
    yield Path(f"{name}-s3cache")
    yield Path(_store_of(name))


def _delete(name: str) -> None:
    forget_behind(Path(name))
    forget_replica(Path(name))
    delete_file(Path(name))
    # A clone's is that of another process, which has ended by now.
    Path(f"{name}-s3cache").unlink(missing_ok=True)
    shutil.rmtree(_store_of(name), ignore_errors=True)
