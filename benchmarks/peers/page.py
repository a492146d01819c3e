"""The figures as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.documents import circumstances
from benchmarks.peers.figures import Figures, Mixed, Operation


def lines(
    found: Mapping[str, Figures],
    missing: Mapping[str, str],
    rounds: int,
    load: float,
) -> Iterator[str]:
    """All tables, as Markdown: a line for each peer."""
    yield f"{circumstances(load)}; {rounds} rounds of each.\n"
    if found:
        yield from _table(
            "Median (p90), n, in milliseconds",
            _names_of_operations(found),
            found,
            lambda figures, name: _time(figures.operations[name]),
        )
        yield from _table(
            "Requests to the store for one operation",
            _names_of_operations(found),
            {name: one for name, one in found.items() if _uses_the_store(one)},
            lambda figures, name: f"{figures.operations[name].requests_each:,.2f}",
        )
        yield from _table(
            "Reads and writes at once",
            list(MIXED),
            found,
            lambda figures, name: MIXED[name](figures.mixed),
        )
    for name, why in missing.items():
        yield f"- Not measured: {name}. {why}"


def _table(
    title: str,
    columns: list[str],
    found: Mapping[str, Figures],
    cell: Any,
) -> Iterator[str]:
    yield f"| {title} | {' | '.join(columns)} |"
    yield "|---|" + "---|" * len(columns)
    for name, figures in found.items():
        cells = [cell(figures, column) for column in columns]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _names_of_operations(found: Mapping[str, Figures]) -> list[str]:
    return list(next(iter(found.values())).operations)


def _uses_the_store(figures: Figures) -> bool:
    return bool(figures.mixed.requests or _any_requests(figures))


def _any_requests(figures: Figures) -> bool:
    return any(one.requests for one in figures.operations.values())


def _time(one: Operation) -> str:
    return (
        f"{_milliseconds(one.median)} ({_milliseconds(one.p90)}), {len(one.seconds):,}"
    )


def _milliseconds(seconds: float) -> str:
    figure = 1000 * seconds
    return f"{figure:.3g}" if figure < 100 else f"{figure:,.0f}"


def _per_second(mixed: Mixed) -> str:
    figures = sorted(mixed.per_second)
    middle = figures[len(figures) // 2]
    return f"{middle:,.0f} ({figures[0]:,.0f} to {figures[-1]:,.0f})"


def _elsewhere(counts: Counter[str]) -> str:
    reads = counts["read elsewhere"]
    return f"{counts['stale elsewhere']:,} of {reads:,}" if reads else ""


MIXED: dict[str, Any] = {
    "operations a second (least to most)": _per_second,
    "n": lambda mixed: f"{mixed.operations:,}",
    "stale reads": lambda mixed: f"{mixed.counts['stale']:,}",
    "stale on another host": lambda mixed: _elsewhere(mixed.counts),
    "lost updates": lambda mixed: f"{mixed.counts['lost']:,}",
    "errors": lambda mixed: f"{mixed.counts['errors']:,}",
    "requests to the store for one": lambda mixed: f"{mixed.requests_each:.3f}",
}


def as_json(found: Mapping[str, Figures], missing: Mapping[str, str]) -> dict[str, Any]:
    """For programs."""
    return {
        "results": {name: one.as_json() for name, one in found.items()},
        "missing": dict(missing),
    }
