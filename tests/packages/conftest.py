"""Fixtures for tests with packages of others, as projects use them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.cache import caches

from tests.engine import Host as Host
from tests.engine import bucket, host, hosts, tables
from tests.library.models import Author, Book

__all__ = ["bucket", "host", "hosts", "tables"]


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    """Begin with nothing kept."""
    caches["default"].clear()
    yield
    caches["default"].clear()


@pytest.fixture
def books(host: Host) -> list[Book]:
    """Thirty books of two authors."""
    authors = [Author.objects.create(name=name) for name in ("Ann", "Bob")]
    return Book.objects.bulk_create(
        Book(
            title=f"Book {number:02}",
            author=authors[number % 2],
            stock=number,
            price=number,
        )
        for number in range(30)
    )
