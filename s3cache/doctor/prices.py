"""What a month costs, at list prices."""

from __future__ import annotations

from dataclasses import dataclass

from s3cache.metrics.prices import Prices

SECONDS_PER_MONTH = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Month:
    """A month of one database at a steady rate, in dollars."""

    commits: float
    asking: float
    storage: float

    @property
    def total(self) -> float:
        """The whole bill for it."""
        return self.commits + self.asking + self.storage


def month(
    prices: Prices,
    *,
    commits_per_second: float,
    stored_bytes: int,
    hosts: int,
    max_age: float,
) -> Month:
    """What ``hosts`` that are busy all day cost at most.

    Each asks the log at most once in ``max_age`` seconds (0: at each read,
    which cannot be known, and is taken for one in a second), and reads each
    commit of the others.
    """
    commits = commits_per_second * SECONDS_PER_MONTH
    asked = hosts * SECONDS_PER_MONTH / (max_age or 1.0)
    read = (hosts - 1) * commits
    return Month(
        commits=commits * prices.put / 1000,
        asking=(asked + read) * prices.get / 1000,
        storage=stored_bytes / 1e9 * prices.storage,
    )
