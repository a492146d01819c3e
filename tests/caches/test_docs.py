"""The reference page lists every option of every backend, and its default."""

from __future__ import annotations

import re

import pytest

from s3cache import caches
from s3cache.caches.base import Cache
from tests.docs.pages import page

PAGE = "reference/caches.md"
CLASSES: list[type[Cache]] = [getattr(caches, name) for name in caches.__all__]


def tables() -> dict[str, dict[str, str]]:
    """Defaults by option, by the heading that they stand under."""
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for line in page(PAGE).text.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif row := re.match(r"\| `(\w+)` \| `(.+?)` \|", line):
            found.setdefault(heading, {})[row[1]] = row[2]
    return found


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_options_are_documented(kind: type[Cache]) -> None:
    said = {**tables()["Options of all backends"], **tables()[kind.__name__]}
    shown = {
        name: f'"{value}"' if isinstance(value, str) else repr(value)
        for name, value in kind.defaults.items()
    }
    assert said == shown


def test_defaults_and_readers_are_of_the_same_options() -> None:
    for kind in CLASSES:
        assert kind.defaults.keys() == kind.readers.keys()


def test_every_field_of_the_statistics_is_documented() -> None:
    from s3cache.caches.statistics import Statistics

    text = page(PAGE).text
    for field in Statistics.__annotations__:
        assert f"`{field}`" in text
