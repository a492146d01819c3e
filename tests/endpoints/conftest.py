"""Fixtures for tests of the endpoints."""

from __future__ import annotations

from tests.engine import bucket, host, hosts, tables

__all__ = ["bucket", "host", "hosts", "tables"]
