"""Keys that callers make: readable, safe for any cache, never the same."""

from __future__ import annotations

import warnings

import pytest
from django.core.cache.backends.base import memcache_key_warnings
from hypothesis import given
from hypothesis import strategies as st

from s3cache.facade import KeyBuilder
from s3cache.facade.keys import own_key
from s3cache.results.keys import NAMESPACE
from tests.testapp.models import Product

KEYS = KeyBuilder("shop")
#: What prefixes of Django's and of the facade add to a key is short.
ROOM = 250
texts = st.text(max_size=300)


def is_portable(key: str) -> bool:
    return len(key) <= ROOM and not [*memcache_key_warnings(key)]


def test_keys_say_what_they_are_of() -> None:
    assert KEYS.item(Product, 7) == "shop:testapp.product:item:7"
    assert KEYS.item("testapp.Product", "7") == KEYS.item(Product, 7)
    assert KEYS.list(Product) == "shop:testapp.product:list:all"
    assert KEYS.count(Product, stock=1) == "shop:testapp.product:count:stock=1"


def test_the_order_of_filters_does_not_matter() -> None:
    assert KEYS.list(Product, region="EU", kind="x") == (
        KEYS.list(Product, kind="x", region="EU")
    )


def test_what_differs_has_another_key() -> None:
    keys = [
        KEYS.list(Product),
        KEYS.list(Product, kind="all"),
        KEYS.list(Product, stock=1),
        KEYS.list(Product, stock="1"),
        KEYS.list(Product, stock=True),
        KEYS.count(Product, stock=1),
        KEYS.item(Product, 1),
        KeyBuilder("other").item(Product, 1),
    ]
    assert len({*keys}) == len(keys)


def test_patterns() -> None:
    assert KEYS.pattern(Product) == "shop:testapp.product:*"
    assert KEYS.pattern(Product, "list") == "shop:testapp.product:list:*"
    with pytest.raises(ValueError, match="'page' is no kind of key. Kinds are 'item'"):
        KEYS.pattern(Product, "page")


def test_a_prefix_is_no_pattern() -> None:
    assert "*" not in KeyBuilder("a*").pattern(Product)[:-1]
    assert KeyBuilder("a:b").item(Product, 1).count(":") == 3


@given(texts, texts)
def test_whatever_they_are_made_of(one: str, other: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in (
            lambda text: KEYS.item(Product, text),
            lambda text: KEYS.list(Product, name=text),
            lambda text: KeyBuilder(text).count(Product),
            lambda text: own_key("testapp.product", "", text),
        ):
            assert is_portable(make(one))
            assert (make(one) == make(other)) is (one == other)


@given(texts)
def test_a_callers_key_is_never_that_of_a_result(key: str) -> None:
    made = own_key("testapp.product", "", key)
    assert made.startswith(f"{NAMESPACE}:own:testapp.product:")
    # Labels of models have a dot, which "own" has not.
    assert made.split(":")[1] == "own"


def test_long_labels_that_begin_alike() -> None:
    one, other = ("app." + "x" * 60 + end for end in "ab")
    assert own_key(one, "", "k") != own_key(other, "", "k")
