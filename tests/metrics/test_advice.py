"""What is said of models whose reads are seldom hits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from msgspec import convert

from s3cache.metrics import advice, keeping, show
from s3cache.metrics.advice import advise
from s3cache.metrics.book import Lately
from s3cache.metrics.sizes import rows_of
from s3cache.results.counters import counters
from tests.engine import Bucket, Host
from tests.testapp.models import Product

LABEL = "testapp.gear"
HOT = "testapp.product"


@pytest.mark.parametrize(
    ("numbers", "is_slow", "kind", "says"),
    [
        ({"hit": 30, "miss": 69}, False, None, ""),  # too few to tell
        ({"bypass": 200}, False, "none", "is not cached at all"),
        ({"miss": 200}, False, "unrepeated", "Add it to EXCLUDE"),
        ({"hit": 90, "miss": 110}, False, "low", "Less than half"),
        ({"hit": 150, "miss": 50}, False, "low", "75 % of the reads of"),
        ({"hit": 79, "miss": 1, "wait": 80}, True, "slow", "are slow all the same"),
        ({"hit": 190, "miss": 10}, False, None, ""),
        ({"hit": 190, "changed": 100}, False, "writes", "100 changes for 190 reads"),
        # What others commit is theirs to be told of.
        ({"hit": 190, "moved": 100}, False, None, ""),
    ],
)
def test_what_to_try(
    numbers: dict[str, int], is_slow: bool, kind: str | None, says: str
) -> None:
    slow = {LABEL} if is_slow else ()
    lately = {LABEL: convert(numbers, Lately)}
    found = list(advise("default", lately, slow, lambda label: 99_999))
    assert [one.kind for one in found] == ([] if kind is None else [kind])
    for one in found:
        assert LABEL in one.message
        assert says in one.message


@pytest.mark.parametrize(
    ("rows", "hits", "kind"),
    [(100_000, 79, "large"), (99_999, 79, "low"), (100_000, 80, None)],
)
def test_a_very_large_model_that_seldom_hits(
    rows: int, hits: int, kind: str | None
) -> None:
    lately = {LABEL: Lately(hit=hits, miss=100 - hits)}
    found = list(advise("default", lately, (), lambda label: rows))
    assert [one.kind for one in found] == ([kind] if kind else [])
    if kind == "large":
        assert "about 100000 rows, and only 79 % of its reads" in found[0].message
        assert "Add it to EXCLUDE" in found[0].message


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_how_large_a_model_is(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen:
        assert rows_of("default", "testapp.product") == 0
    Product.objects.bulk_create(Product(sku=str(n)) for n in range(5))
    with bucket.requests() as asked:
        assert rows_of("default", "testapp.product") == 5
        assert rows_of("default", "testapp.product@namespace") == 5
        for database, label in (("other", HOT), ("default", "sql"), ("default", "a.b")):
            assert rows_of(database, label) == 0
    assert seen == asked == []
    for _ in range(150):
        counters.count(HOT, "get", "miss", database="default")
        counters.count(HOT, "get", "hit", database="default")
    with patch.object(advice, "_LARGE", 5):
        (one,) = show.advice()
    assert (one.kind, one.model) == ("large", HOT)


def count(model: str, hits: int, misses: int) -> None:
    for event, number in (("hit", hits), ("miss", misses)):
        for _ in range(number):
            counters.count(model, "get", event, database="default")


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_the_worst_comes_first(host: Host) -> None:
    count(LABEL, 70, 30)
    count(HOT, 20, 80)
    assert [(one.model, one.hit_rate) for one in show.advice()] == [
        (HOT, 0.2),
        (LABEL, 0.7),
    ]
    assert show.advice(database="other") == ()


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_a_hit_rate_that_stays_low_is_logged_once_an_hour(
    host: Host,
    bucket: Bucket,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(advice, "time", SimpleNamespace(time=lambda: now))
    book = keeping.book()
    assert book is not None
    said = []
    for _ in range(63):
        count(LABEL, 60, 40)
        count(HOT, 70, 30)
        keeping.flush()
        advice.warn(book)
        advice.warn(book)  # nothing: a minute has not passed
        now += 60
        said.append(sum(LABEL in one.message for one in caplog.records))
    assert said[:4] == [0, 1, 1, 1]  # it has been low twice
    assert said[-1] == 2  # and for another hour
    assert "only 60 % of its reads are hits" in caplog.text
    assert HOT not in caplog.text


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
def test_nothing_is_logged_where_the_settings_say_so(
    host: Host, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.S3CACHE = {"HIT_RATE_WARNING": None}
    book = keeping.book()
    assert book is not None
    for _ in range(3):
        count(LABEL, 0, 200)
        keeping.flush()
        advice.warn(book)
    assert LABEL not in caplog.text
