"""Fixtures for tests of records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3cache.db import base
from tests.db.hosts import processes
from tests.engine import Host, MakeHost, bucket, hosts, tables

__all__ = ["bucket", "hosts", "processes", "tables"]


@pytest.fixture
def host(hosts: MakeHost) -> Iterator[Host]:
    """A host that is in use and has caught up, and has records."""
    made = hosts(records=True)
    made.catch_up()
    with made:
        yield made


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit has records written by itself."""
    monkeypatch.setattr(base, "record_after", lambda replica: None)
