"""Fixtures for tests of bad days."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from s3cache.stores import Store
from s3cache.stores.s3 import S3Store
from tests.faults.proxy import Proxy
from tests.s3_server import S3Server, SharedSessionStorage


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    """A proxy before moto."""
    with Proxy(s3_server.address) as made:
        yield made


@pytest.fixture
def through(proxy: Proxy, s3_options: dict[str, Any], s3_store: Store) -> Store:
    """The bucket of ``s3_store``, reached through the proxy."""
    options = {**s3_options, "endpoint_url": proxy.address}
    return S3Store(SharedSessionStorage(**options))
