"""What the figures have to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks import cases
from benchmarks.databases import DELAYED, DIRECTORY, LATENCY, SQLITE
from benchmarks.measuring import Case, Results

#: The results of the cases that were run.
All = Mapping[type[Case], Results]


@dataclass(frozen=True)
class Target:
    """A promise: what ``figure`` computes is at most, or at least, ``limit``.

    ``about`` are the cases that it needs.
    """

    words: str
    limit: float
    about: tuple[type[Case], ...]
    figure: Callable[[All], float]
    at_least: bool = False

    def can_be_judged(self, results: All) -> bool:
        """Whether its cases were run."""
        return all(case in results for case in self.about)

    def is_met(self, results: All) -> bool:
        """Whether the promise is kept."""
        figure = self.figure(results)
        return figure >= self.limit if self.at_least else figure <= self.limit


@dataclass(frozen=True)
class _Ratio:
    """The median of a case on a database to that of another."""

    case: type[Case]
    database: str
    base_case: type[Case]
    base: str

    def __call__(self, results: All) -> float:
        measured = results[self.case][self.database]
        return measured.median / results[self.base_case][self.base].median


@dataclass(frozen=True)
class _MostPuts:
    """The most PUT requests that one operation took, on any store."""

    case: type[Case]

    def __call__(self, results: All) -> float:
        return max(one.most("PUT") for one in results[self.case].values())


TARGETS = (
    Target(
        "bulk_create() on a directory, times the SQLite file",
        3.0,
        (cases.BulkCreate,),
        _Ratio(cases.BulkCreate, DIRECTORY, cases.BulkCreate, SQLITE),
    ),
    Target(
        "bulk_create(), most PUT requests",
        3.0,
        (cases.BulkCreate,),
        _MostPuts(cases.BulkCreate),
    ),
    Target(
        f"create() in 16 threads at {LATENCY * 1000:.0f} ms, times as many as in one",
        12.0,
        (cases.CreateInOneThread, cases.CreateInThreads),
        _Ratio(cases.CreateInOneThread, DELAYED, cases.CreateInThreads, DELAYED),
        at_least=True,
    ),
    Target(
        "atomic() with one write, the large table to the small one",
        1.5,
        (cases.BlockOnSmall, cases.BlockOnLarge),
        _Ratio(cases.BlockOnLarge, DIRECTORY, cases.BlockOnSmall, DIRECTORY),
    ),
)
