"""Two hosts with several processes: every figure equals another's count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from s3cache.dashboard import numbers
from tests.db.hosts import MakeProcess, Process
from tests.engine import Bucket
from tests.metrics import load

LABEL = "testapp.gear"
PRODUCT = "testapp.product"


def reads(snapshot: dict[str, Any], label: str = LABEL) -> dict[str, int]:
    """What became of all reads of a model."""
    (model,) = [one for one in snapshot["models"] if one["model"] == label]
    return {event: number for event, number in model["reads"].items() if number}


def by_kind(seen: Iterable[str]) -> dict[str, int]:
    """How many there were of each kind, as their receiver has counted them."""
    return Counter(name.partition(" ")[0] for name in seen)


def cost(seen: Iterable[str]) -> float:
    """In dollars, at the prices of today's list."""
    prices = {"GET": 0.0004, "PUT": 0.005, "LIST": 0.005}
    return sum(prices[kind] * number for kind, number in by_kind(seen).items()) / 1000


def requests(snapshot: dict[str, Any]) -> dict[str, int]:
    return {one["kind"]: one["number"] for one in snapshot["requests"]}


def small(snapshot: dict[str, Any]) -> tuple[int, dict[str, int], int]:
    """What is in the cache "small", what has left it, and its misses."""
    (cache,) = [one for one in snapshot["caches"] if one["alias"] == "small"]
    return cache["size"], cache["evictions"], cache["misses"]


@pytest.fixture
def team(processes: MakeProcess, tmp_path: Path) -> list[Process]:
    """Two processes of one host, and one of another."""
    made = [processes(name, records=False) for name in ("one", "one", "two")]
    for process in made:
        process.call(load.begin, str(tmp_path / "shared"))
    return made


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_every_figure_equals_another_count(bucket: Bucket, team: list[Process]) -> None:
    first, second, other = team
    with bucket.requests() as begun:
        (pk,) = first.call(load.create, ["a"])
        first.call(load.get, pk, 4)  # 1 miss, 3 hits
        second.call(load.get, pk, 3)  # 1 miss, 2 hits
    with bucket.requests() as elsewhere:
        other.call(load.catch_up)
        other.call(load.get, pk, 2)  # 1 miss, 1 hit
        other.call(load.create, ["b", "c"])
    with bucket.requests() as ended:
        # Its number is taken, twice.
        first.call(load.create, ["d"])
        first.call(load.count_products, "EU", 2)
        first.call(load.count_past_the_cache, 3)
    first.call(load.fill, load.SMALL + 2)
    second.call(load.fill, load.SMALL - 1)
    other.call(load.fill, load.SMALL + 3)
    here = [*begun, *ended]
    seen = [*here, *elsewhere]
    for process in (first, second, other):
        process.call(load.exchange)
    other.call(load.exchange)  # has heard of the last one now
    first.call(load.exchange)

    process = first.call(load.snapshot, "process")
    assert reads(process) == {"hit": 3, "miss": 1}
    (get,) = [one for one in process["reads"] if one["model"] == LABEL]
    assert get["reads"]["hit"] / (get["reads"]["hit"] + get["reads"]["miss"]) == 0.75
    past, count = [one for one in process["reads"] if one["model"] == PRODUCT]
    assert (past["partition"], past["reads"]["bypass"]) == ("", 3)
    assert (count["action"], count["partition"]) == ("count", "by_region")
    assert count["reads"] == {**dict.fromkeys(count["reads"], 0), "hit": 1, "miss": 1}

    host = first.call(load.snapshot, "host")
    assert reads(host) == {"hit": 5, "miss": 2}
    (database,) = host["databases"]
    assert (database["commits"], database["transactions"]) == (2, 2)
    assert database["retries"] == ended.count("PUT log") - 1 > 0
    (model,) = [one for one in host["models"] if one["model"] == LABEL]
    assert model["changes"] == 4
    assert small(host) == (2 * load.SMALL - 1, {"entries": 2}, 2)
    assert len(host["processes"]) == 2
    assert requests(host) == by_kind(here)

    for one in (first, other):
        fleet = one.call(load.snapshot, "fleet")
        assert reads(fleet) == {"hit": 6, "miss": 3}
        assert requests(fleet) == by_kind(seen)
        assert [one["commits"] for one in fleet["databases"]] == [4]
        (model,) = [one for one in fleet["models"] if one["model"] == LABEL]
        assert model["changes"] == 4
        assert small(fleet) == (3 * load.SMALL - 1, {"entries": 2 + 3}, 3)
        assert {host["processes"] for host in fleet["hosts"]} == {1, 2}
        assert fleet["shares"]

        money = one.call(load.money, "fleet")
        assert money["spent"] == pytest.approx(cost(seen))
        assert money["saved"] == pytest.approx(cost(["GET"] * (6 + 1)))

    points = first.call(load.history, "host")["points"]
    assert sum(point["reads"]["hit"] for point in points) == 5 + 1
    assert sum(point["commits"] for point in points) == 2
    assert sum(point["reads"]["bypass"] for point in points) == 3
    assert sum(point["evictions"] for point in points) == 2
    made: Counter[str] = Counter()
    for point in points:
        made.update(point["requests"])
    assert made == by_kind(here)

    money = first.call(load.money, "host")
    assert money["spent_today"] == pytest.approx(cost(here))
    saved = {one["model"]: one["saved_requests_today"] for one in money["models"]}
    assert saved == {LABEL: 5, PRODUCT: 1}

    # What is on the page.
    tiles = first.call(load.tiles, "host")
    assert tiles["Hit rate"] == ("66.7%", "of 9 reads")  # that asked the cache
    assert tiles["Store requests"] == (str(len(here)), "0 failed")
    assert tiles["Saved today"] == (
        numbers.money(cost(["GET"] * 6)),
        f"{numbers.money(cost(here))} spent",
    )
    assert first.call(load.rows, "host") == {
        (LABEL, "get"): (5, 2, numbers.money(cost(["GET"] * 5))),
        (PRODUCT, "count"): (1, 1, numbers.money(cost(["GET"]))),
    }

    # A process that is recycled takes nothing with it but itself.
    second.stop()
    host = first.call(load.snapshot, "host")
    assert reads(host) == {"hit": 5, "miss": 2}
    assert len(host["processes"]) == 1
