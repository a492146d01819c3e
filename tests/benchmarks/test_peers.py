"""How the rounds of a peer become a table, and the table part of a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import documents
from benchmarks.peers import __main__ as peers
from benchmarks.peers import page
from benchmarks.peers.figures import Figures


def told(milliseconds: list[float], **mixed: int) -> dict[str, Any]:
    """What the process of a peer says of a round."""
    seconds = [one / 1000 for one in milliseconds]
    return {
        "operations": {"get(pk)": {"seconds": seconds, "requests": {"GET": 3}}},
        "mixed": {
            "counts": {"reads": 90, "writes": 10, **mixed},
            "seconds": 0.5,
            "requests": {"PUT": 5, "GET": 1},
        },
    }


def tables(found: dict[str, Figures], missing: dict[str, str]) -> list[list[str]]:
    """The cells of each row."""
    lines = page.lines(found, missing, rounds=2, load=0.5)
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]


@pytest.mark.parametrize("name", ["s3cache", "SQLite file"])
def test_a_round_has_all_operations(name: str) -> None:
    found = peers.run(peers.Contestant(peers.PEERS[name], 0.0), 0.01)
    operations = found["operations"]
    assert [*operations] == [
        "get(pk), one of 100",
        "count()",
        "list(100)",
        "filter(region).count()",
        "page of 200 warehouses",
        "create()",
        "update(stock + 1)",
        "update, then get(pk)",
        "count() of 100,000",
    ]
    for read in ("page of 200 warehouses", "count() of 100,000"):
        assert len(operations[read]["seconds"]) >= 5
        # From a replica, not object by object; a keeper may be at work beside.
        assert sum(operations[read]["requests"].values()) < 100


def test_rounds_are_added_up() -> None:
    figures = Figures()
    figures.add(told([1, 2, 3], stale=1))
    figures.add(told([4, 5], lost=2))
    _head, time, _head, requests, _head, mixed = tables({"a peer": figures}, {})
    assert time == ["a peer", "3 (4.6), 5"]
    assert requests == ["a peer", "1.20"]
    assert mixed == ["a peer", "200 (200 to 200)", "200", "1", "", "2", "0", "0.060"]


def test_a_peer_that_asks_for_nothing_is_not_among_those_that_do() -> None:
    one = told([1.0, 1.0])
    one["operations"]["get(pk)"]["requests"] = one["mixed"]["requests"] = {}
    figures = Figures()
    figures.add(one)
    assert ["a peer", "0.00"] not in tables({"a peer": figures}, {})


def test_what_was_not_measured_says_why() -> None:
    lines = page.lines({}, {"a peer": "npm install it"}, rounds=1, load=0.0)
    assert "- Not measured: a peer. npm install it" in lines


def test_programs_get_all_of_it() -> None:
    figures = Figures()
    figures.add(told([1, 2], stale=1))
    found = json.loads(json.dumps(page.as_json({"a peer": figures}, {"b": "why"})))
    assert found["missing"] == {"b": "why"}
    one = found["results"]["a peer"]
    assert one["operations"]["get(pk)"] == {
        "seconds": [0.001, 0.002],
        "requests": {"GET": 3},
    }
    assert one["mixed"]["counts"] == {"reads": 90, "writes": 10, "stale": 1}


def test_a_section_of_a_page_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    begin, end = "<!-- benchmarks.a: begin -->", "<!-- benchmarks.a: end -->"
    path.write_text(f"# Page\n\n{begin}\n{end}\n\nThe rest.\n")
    for text in ("first", "second\n"):
        documents.put(text, "a", path)
        assert path.read_text() == (
            f"# Page\n\n{begin}\n\n{text.strip()}\n\n{end}\n\nThe rest.\n"
        )
    with pytest.raises(ValueError, match="page.md has no <!-- benchmarks.b: begin"):
        documents.put("text", "b", path)
