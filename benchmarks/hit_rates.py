"""``python -m benchmarks.hit_rates``: what each policy finds again.

Requests are drawn from a Zipf distribution (0.99). A scan now and then asks
for keys that nobody asks for again; a shift makes other keys popular. Beside
our policies stands the clairvoyant optimum (Belady, 1966), which evicts what
is not asked for the longest time and so cannot be beaten.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from s3cache.caches.policies import POLICIES, Node

ZIPF = 0.99
SHARE = 0.01
REQUESTS = 10
"""Requests for each key of the universe."""


@dataclass(frozen=True)
class Trace:
    """What is asked for: numbers of keys, in order."""

    name: str
    keys: int
    scans: float = 0.0
    """The share of requests that belong to scans."""
    shifts: int = 0
    target: float | None = None
    """Points that S3-FIFO has to be above LRU."""

    def requests(self, seed: int) -> list[int]:
        """The same for the same seed."""
        numbers = random.Random(seed)
        weights = [1 / (rank + 1) ** ZIPF for rank in range(self.keys)]
        cumulated = list(itertools.accumulate(weights))
        total = self.keys * REQUESTS
        drawn = numbers.choices(range(self.keys), cum_weights=cumulated, k=total)
        if self.shifts:
            every = total // (self.shifts + 1)
            drawn = [
                (key + index // every * self.keys // 7) % self.keys
                for index, key in enumerate(drawn)
            ]
        return list(self._with_scans(drawn, numbers))

    def _with_scans(self, drawn: list[int], numbers: random.Random) -> Iterator[int]:
        size = int(self.keys * SHARE)
        scanned = self.keys
        begins = self.scans / (1 - self.scans) / size
        for key in drawn:
            yield key
            if self.scans and numbers.random() < begins:
                yield from range(scanned, scanned + size)
                scanned += size


TRACES = (
    Trace("20,000 keys", 20_000, target=8),
    Trace("20,000 keys, 17 % scans", 20_000, scans=0.17, target=8),
    Trace("20,000 keys, shifts", 20_000, shifts=4),
    Trace("100,000 keys", 100_000, target=8),
    Trace("100,000 keys, 17 % scans", 100_000, scans=0.17, target=8),
    Trace("100,000 keys, shifts", 100_000, shifts=4),
)


def hit_rate(policy_name: str, requests: Sequence[int], most: int) -> float:
    """The share of requests that a cache of `most` entries answers."""
    policy = POLICIES[policy_name]()
    nodes: dict[int, Node] = {}
    hits = 0
    for key in requests:
        node = nodes.get(key)
        if node is not None:
            hits += 1
            node.uses = min(3, node.uses + 1)
            policy.used(node)
            continue
        if len(nodes) >= most:
            victim = policy.victim()
            if victim is not None:
                del nodes[victim.key]  # type: ignore[arg-type]
        nodes[key] = Node(key, 1)
        policy.add(nodes[key])
    return hits / len(requests)


def optimum(requests: Sequence[int], most: int) -> float:
    """The same of a cache that knows the future."""
    after: list[int] = [0] * len(requests)
    following: dict[int, int] = {}
    for index in range(len(requests) - 1, -1, -1):
        after[index] = following.get(requests[index], len(requests))
        following[requests[index]] = index
    there: dict[int, int] = {}  # by key: when it is asked for next
    queue: list[tuple[int, int]] = []
    hits = 0
    for index, key in enumerate(requests):
        if key in there:
            hits += 1
        elif len(there) >= most:
            if after[index] >= -queue[0][0]:
                continue  # the new one is asked for last of all
            while True:
                when, victim = heapq.heappop(queue)
                if there.get(victim) == -when:
                    del there[victim]
                    break
        there[key] = after[index]
        heapq.heappush(queue, (-after[index], key))
        while queue and there.get(queue[0][1]) != -queue[0][0]:
            heapq.heappop(queue)
    return hits / len(requests)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate all; return 1 if ``--check`` finds a target missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hit_rates")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true", help="20,000 keys only")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    missed = 0
    print(f"Hit rates in percent; caches of {SHARE:.0%} of the keys.")
    print(f"{'':26}{'s3fifo':>8}{'lru':>8}{'fifo':>8}{'optimum':>9}{'points':>9}")
    for trace in TRACES:
        if options.quick and trace.keys > 20_000:
            continue
        requests = trace.requests(options.seed)
        most = int(trace.keys * SHARE)
        rates = [
            100 * hit_rate(name, requests, most) for name in ("s3fifo", "lru", "fifo")
        ]
        above = rates[0] - rates[1]
        best = 100 * optimum(requests, most)
        verdict = ""
        if trace.target is not None:
            missed += above < trace.target
            met = "met" if above >= trace.target else "MISSED"
            verdict = f"  {met} (at least {trace.target:g})"
        print(
            f"{trace.name:26}{rates[0]:8.1f}{rates[1]:8.1f}{rates[2]:8.1f}{best:9.1f}"
            f"{above:9.1f}{verdict}",
            flush=True,
        )
    return int(bool(missed) and options.check)


if __name__ == "__main__":
    sys.exit(main())
