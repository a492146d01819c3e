"""
Fixtures for projects that are tested with pytest: what `s3cache.testing` has.

pytest finds them by itself where django-s3cache is installed. Nothing of
Django is imported before a test asks for one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper
    from s3cache.testing import Reads, Requests

__all__ = ["s3cache_other_host", "s3cache_reads", "s3cache_requests"]


@pytest.fixture
def s3cache_reads() -> Callable[[], AbstractContextManager[Reads]]:
    """``with s3cache_reads() as reads``: see `watch_reads`."""
    from s3cache.testing import watch_reads

    return watch_reads


@pytest.fixture
def s3cache_requests() -> Callable[[], AbstractContextManager[Requests]]:
    """``with s3cache_requests() as spent``: see `count_requests`."""
    from s3cache.testing import count_requests

    return count_requests


@pytest.fixture
def s3cache_other_host() -> Callable[..., AbstractContextManager[DatabaseWrapper]]:
    """``with s3cache_other_host()``: see `other_host`."""
    from s3cache.testing import other_host

    return other_host
