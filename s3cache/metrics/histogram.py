"""How long requests took: percentiles from few numbers that add up.

Log-linear buckets, as in HdrHistogram: each power of two is cut into eight, so
a percentile is known to within an eighth, from a microsecond to an hour, and
the buckets of threads, processes, hosts and minutes are simply added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

__all__ = ["MOST_BUCKETS", "Histogram", "bucket_of", "upper_bound"]

#: Eighths of a power of two.
_BITS: Final = 3
_PARTS: Final = 1 << _BITS

#: What takes longer than this many microseconds counts as that long.
_LONGEST: Final = 2**32 - 1

#: There are no more buckets than this.
MOST_BUCKETS: Final = (32 - _BITS + 1) * _PARTS


def bucket_of(seconds: float) -> int:
    """The bucket that a duration belongs to."""
    micros = min(max(int(seconds * 1e6), 0), _LONGEST)
    shift = micros.bit_length() - _BITS - 1
    if shift <= 0:
        return micros
    return (shift << _BITS) + (micros >> shift)


def upper_bound(bucket: int) -> float:
    """The seconds below which all durations of a bucket are."""
    if bucket < 2 * _PARTS:
        return (bucket + 1) / 1e6
    shift = (bucket >> _BITS) - 1
    return ((_PARTS + bucket % _PARTS + 1) << shift) / 1e6


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many durations are in each bucket."""

    counts: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def number(self) -> int:
        """How many durations there are."""
        return sum(self.counts.values())

    def percentile(self, percent: float) -> float:
        """The seconds that ``percent`` of 100 did not exceed; 0.0 if none.

        At most an eighth more than was measured.
        """
        left = self.number * percent / 100
        if not self.counts:
            return 0.0
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                break
        return upper_bound(bucket)

    def up_to(self, seconds: float) -> int:
        """How many did not exceed that, to within an eighth."""
        last = bucket_of(seconds)
        return sum(n for bucket, n in self.counts.items() if bucket <= last)

    def __add__(self, other: Histogram) -> Histogram:
        counts = dict(self.counts)
        for bucket, number in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + number
        return Histogram(counts)
