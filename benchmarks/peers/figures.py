"""What a peer's process tells of itself, and the sum of several rounds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What a round of one peer is, as JSON.
Told = Mapping[str, Any]


@dataclass
class Operation:
    """An operation, measured one at a time; times in seconds."""

    seconds: list[float] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)

    @property
    def p90(self) -> float:
        """Nine of ten took no longer, in seconds."""
        return statistics.quantiles(self.seconds, n=10, method="inclusive")[-1]

    @property
    def requests_each(self) -> float:
        """Requests to the store for one."""
        return self.requests.total() / len(self.seconds)


@dataclass
class Mixed:
    """Reads and writes at once: how many, and what went wrong."""

    per_second: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def operations(self) -> int:
        """Reads and writes that succeeded."""
        return self.counts["reads"] + self.counts["writes"]

    @property
    def requests_each(self) -> float:
        """Requests to the store for one operation."""
        return self.requests.total() / max(self.operations, 1)


@dataclass
class Figures:
    """All that was measured of a peer, over its rounds."""

    operations: dict[str, Operation] = field(default_factory=dict)
    mixed: Mixed = field(default_factory=Mixed)

    def add(self, told: Told) -> None:
        """Add a round."""
        for name, one in told["operations"].items():
            operation = self.operations.setdefault(name, Operation())
            operation.seconds += one["seconds"]
            operation.requests.update(one["requests"])
        mixed = told["mixed"]
        self.mixed.counts.update(mixed["counts"])
        self.mixed.requests.update(mixed["requests"])
        done = mixed["counts"].get("reads", 0) + mixed["counts"].get("writes", 0)
        self.mixed.per_second.append(done / mixed["seconds"])

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "operations": {
                name: {"seconds": one.seconds, "requests": dict(one.requests)}
                for name, one in self.operations.items()
            },
            "mixed": {
                "per second": self.mixed.per_second,
                "counts": dict(self.mixed.counts),
                "requests": dict(self.mixed.requests),
            },
        }
