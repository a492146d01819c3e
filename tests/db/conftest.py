"""Fixtures for tests of the database backend."""

from __future__ import annotations

from tests.db.hosts import faulty, processes
from tests.engine import bucket, host, hosts, tables

__all__ = ["bucket", "faulty", "host", "hosts", "processes", "tables"]
