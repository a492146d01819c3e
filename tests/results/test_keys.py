"""Keys can be read by people, and kept by any cache."""

from __future__ import annotations

import sqlite3
import warnings
from contextlib import closing
from enum import Enum, IntEnum
from typing import Any

import pytest
from django.core.cache.backends.base import memcache_key_warnings
from django.db import models
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from s3cache.replica.meta import Version
from s3cache.results.keys import key_of
from s3cache.results.policy import Policy
from s3cache.results.versions import At

POLICY = Policy(label="shop.product", cache="default", ttl=300, key_version=1)
AT = At(b"schema", ((12, "3f9a01cd"),))


def key(**changes: Any) -> str:
    given: dict[str, Any] = {
        "policy": POLICY,
        "action": "count",
        "at": AT,
        "sql": "SELECT ?",
        "params": (1,),
    }
    found = key_of(**given | changes)
    assert found is not None
    return found


def test_a_key_says_what_it_is_about() -> None:
    words = key().split(":")
    assert words[:4] == ["s3cache", "shop.product", "count", "12-3f9a01cd"]
    assert len(words[4]) == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "list"},
        {"sql": "SELECT  ?"},
        {"params": (2,)},
        {"params": (True,)},
        {"params": (1.0,)},
        {"params": ("1",)},
        {"params": (b"1",)},
        {"params": {"a": 1}},
        {"params": (1, None)},
        {"at": At(b"another", AT.versions)},
        {"at": At(b"schema", ((13, "3f9a01cd"),))},
        {"at": At(b"schema", ((12, "another"),))},
        {"policy": Policy("shop.product", "default", 300, 2)},
        {"policy": Policy("shop.product", "default", 300, "1")},
    ],
)
def test_whatever_tells_results_apart_is_in_the_key(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


def test_the_cache_and_the_lifetime_are_not() -> None:
    assert key(policy=Policy("shop.product", "other", 1, 1)) == key()


class Region(models.TextChoices):
    EU = "eu"


class Level(IntEnum):
    HIGH = 3


class Plain(str, Enum):  # noqa: UP042 (whose str() is its name)
    EU = "eu"


class Adapted(str):
    def __conform__(self, protocol: object) -> str:
        return "anything"


@pytest.mark.parametrize(
    ("value", "bound"),
    [(Region.EU, "eu"), (Level.HIGH, 3), (Plain.EU, "eu"), (mark_safe("eu"), "eu")],
)
def test_a_value_is_what_sqlite_gets(value: Any, bound: object) -> None:
    """Whatever its ``str()`` or ``repr()`` says."""
    assert key(params=(value,)) == key(params=(bound,))
    assert key(params={"a": value}) == key(params={"a": bound})
    with closing(sqlite3.connect(":memory:")) as connection:
        assert connection.execute("SELECT ?", (value,)).fetchone() == (bound,)


@given(
    st.text(max_size=200),
    st.lists(st.tuples(st.integers(0, 2**53), st.text(max_size=8)), max_size=30),
    st.text(),
    st.lists(st.text() | st.integers() | st.floats() | st.binary() | st.none()),
)
def test_keys_suit_any_cache(
    label: str, versions: list[Version], sql: str, params: list[Any]
) -> None:
    found = key(
        policy=Policy(label, "default", 300, 1),
        at=At(b"schema", tuple(versions)),
        sql=sql,
        params=params,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(memcache_key_warnings(found)) == []


@pytest.mark.parametrize(
    "params", [(object(),), ([1],), {"a": memoryview(b"")}, (Adapted("a"),)]
)
def test_parameters_that_cannot_be_told_apart_have_no_key(params: Any) -> None:
    assert key_of(POLICY, "list", AT, "SELECT ?", params) is None
