"""Fixtures for tests of the keeper."""

from __future__ import annotations

from tests.db.hosts import processes
from tests.engine import bucket, host, hosts, tables

__all__ = ["bucket", "host", "hosts", "processes", "tables"]
