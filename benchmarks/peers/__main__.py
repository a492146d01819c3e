"""``python -m benchmarks.peers``: s3cache next to what else there is.

Each peer has a process of its own, with the same rows, the same operations
and the same load. Those with a bucket have the benchmarks' own S3 server (see
``benchmarks.s3_server``), at 0 and at 20 ms; those with a Redis or a
PostgreSQL one that nobody else uses. In each round all have their turn, so
that what else the machine does is everybody's. What a machine has not got is
named, and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import documents
from benchmarks.missing import IS_MISSING, Missing
from benchmarks.peers import page, s3db
from benchmarks.peers.figures import Figures, Told
from benchmarks.peers.peers import ALL, Peer
from benchmarks.peers.settings import BUCKET, Place
from benchmarks.s3_server import running

LATENCIES = (0.0, 0.02)
ROUNDS = 3

#: How long a round of ``--quick`` is, compared with a whole one.
QUICK = 0.05

PEERS = {peer.name: peer for peer in ALL}


@dataclass(frozen=True)
class Contestant:
    """A peer, and how late its store answers, in seconds."""

    peer: Peer
    latency: float

    @property
    def name(self) -> str:
        """For people."""
        if not self.peer.has_a_bucket:
            return self.peer.name
        return f"{self.peer.name}, {self.latency * 1000:g} ms"


def run(one: Contestant, scale: float) -> Told:
    """A round of a peer, in a process of its own; raises ``Missing``."""
    with running(one.latency) as server:
        server.create_bucket(BUCKET)
        done = subprocess.run(  # noqa: S603 - our own words
            [
                *(sys.executable, "-m", "benchmarks.peers", "--scale", str(scale)),
                *("--measure", one.peer.name, "--store", server.address),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode == IS_MISSING:
        raise Missing(done.stdout.strip())
    if done.returncode:
        raise RuntimeError(f"{one.name} ended with status {done.returncode}")
    told: Told = json.loads(done.stdout)
    return told


def measure(peer: Peer, store: str, scale: float) -> int:
    """Be the process of a peer; its exit status."""
    with (
        tempfile.TemporaryDirectory(prefix="s3cache-peers-") as folder,
        ExitStack() as stack,
    ):
        try:
            print(json.dumps(peer.measure(Place(Path(folder), store, stack), scale)))
        except Missing as error:
            print(error)
            return IS_MISSING
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    described = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description="Measure s3cache and its peers, each in a process of its own.",
    )
    add = described.add_argument
    add("--install", action="store_true", help="first get s3db.js from npm")
    add("--peer", action="append", choices=tuple(PEERS), help="default: all")
    add("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    add("--quick", action="store_true", help="only to see that all works")
    documents.add_outputs(described)
    add("--measure", choices=tuple(PEERS), help=argparse.SUPPRESS)
    add("--store", help=argparse.SUPPRESS)
    add("--scale", type=float, default=1.0, help=argparse.SUPPRESS)
    return described


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all peers, or be one; return the exit status."""
    options = parser().parse_args(arguments)
    if options.measure:
        return measure(PEERS[options.measure], options.store, options.scale)
    if options.install:
        s3db.install()
    contestants = [
        Contestant(PEERS[name], latency)
        for name in options.peer or PEERS
        for latency in (LATENCIES if PEERS[name].has_a_bucket else LATENCIES[:1])
    ]
    rounds, scale = (1, QUICK) if options.quick else (options.rounds, options.scale)
    found: dict[str, Figures] = {}
    missing: dict[str, str] = {}
    load_before = os.getloadavg()[0]
    for number in range(rounds):
        # Nobody is always the one after the other.
        for one in (*contestants[number:], *contestants[:number]):
            if one.name in missing:
                continue
            try:
                found.setdefault(one.name, Figures()).add(run(one, scale))
            except Missing as error:
                missing[one.name] = str(error)
                del found[one.name]
            print(f"round {number + 1}: {one.name}", file=sys.stderr, flush=True)
    ordered = {one.name: found[one.name] for one in contestants if one.name in found}
    tables = "\n".join(page.lines(ordered, missing, rounds, load_before))
    documents.give(options, "peers", tables, page.as_json(ordered, missing))
    return 0


if __name__ == "__main__":
    sys.exit(main())
