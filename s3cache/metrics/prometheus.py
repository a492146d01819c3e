"""The host's figures for Prometheus, by prometheus-client (an extra).

All processes of a host are in the answer of any of them, so there is nothing
to be set up for several: no ``PROMETHEUS_MULTIPROC_DIR``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from s3cache.metrics import show
from s3cache.metrics.export import cumulated, measures
from s3cache.metrics.figures import Snapshot

__all__ = ["HostCollector", "registry"]


_FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


class HostCollector(Collector):
    """Collects what this host has counted; register it where you like."""

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        snapshot = show.snapshot("host")
        for one in measures(snapshot):
            of_kind = (
                CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily
            )
            family = of_kind(one.name, one.text, labels=one.labels)
            for labels, number in one.samples:
                family.add_metric(labels, number)
            yield family
        yield _latency(snapshot)

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: registering asks nobody."""
        yield from ()


def _latency(snapshot: Snapshot) -> Metric:
    family = HistogramMetricFamily(
        "s3cache_store_request_seconds",
        "How long store requests took.",
        labels=("database", "kind"),
    )
    for one in snapshot.requests:
        buckets = [(str(bound), float(n)) for bound, n in cumulated(one.latency)]
        buckets.append(("+Inf", float(one.number)))
        family.add_metric((one.database, one.kind), buckets, one.seconds)
    return family


def registry() -> CollectorRegistry:
    """A registry with nothing else in it."""
    made = CollectorRegistry()
    made.register(HostCollector())
    return made
