"""Two hosts, whose replicas are files without a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replica.hosts import Host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with an empty replica."""
    one = Host(tmp_path / "host.sqlite3")
    yield one
    one.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Host]:
    """Another host of the same database."""
    one = Host(tmp_path / "other.sqlite3")
    yield one
    one.close()
