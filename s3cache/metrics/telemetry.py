"""Metrics and spans for OpenTelemetry (an extra), if a project asks for them.

    from s3cache.metrics import telemetry
    telemetry.instrument()

Metrics are those of this process: whoever gathers them adds processes up. A
span is made of each statement that is read; hits of the hot path, which take
microseconds, have none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import SpanKind, TracerProvider

from s3cache.metrics import show
from s3cache.metrics.export import Measure, measures
from s3cache.results.watching import Read, Watch, watch_always
from s3cache.stores.base import Request

__all__ = ["Spans", "instrument"]

_NAME: Final = "s3cache"

#: Seconds for which the figures that were gathered for one instrument serve
#: the others.
_AT_ONCE: Final = 1.0


class Spans(Watch):
    """Makes a span of each read that was measured."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        super().__init__()
        # Hits of the hot path take less than saying so would.
        self.add = bool
        self._tracer = trace.get_tracer(_NAME, tracer_provider=provider)

    def measured(self, read: Read, seconds: float, requests: Sequence[Request]) -> None:
        """Make a span that ends now."""
        end = time.time_ns()
        span = self._tracer.start_span(
            f"{read.action} {read.label}",
            kind=SpanKind.CLIENT,
            start_time=end - int(seconds * 1e9),
            attributes={
                "db.system.name": "s3cache",
                "db.namespace": read.alias,
                "db.operation.name": read.action,
                "s3cache.event": read.event,
                "s3cache.why": str(read.why),
                "s3cache.tables": list(read.tables),
                "s3cache.requests": len(requests),
            },
        )
        span.end(end)


class _Gathered:
    """The measures of this process, gathered once for all instruments."""

    def __init__(self) -> None:
        self._at = float("-inf")
        self._measures: dict[str, Measure] = {}

    def get(self, name: str) -> Iterable[Observation]:
        """The numbers of one of them."""
        now = time.monotonic()
        if now - self._at > _AT_ONCE:
            found = measures(show.snapshot("process"))
            self._measures = {one.name: one for one in found}
            self._at = now
        one = self._measures.get(name)
        if one is not None:
            for values, number in one.samples:
                labels = dict(zip(one.labels, values, strict=True))
                yield Observation(number, labels)

    def callback(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """What an instrument asks."""
        return lambda options: self.get(name)


def instrument(
    *,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
) -> Spans:
    """Tell OpenTelemetry of this process from now on; call it once.

    Without providers, those that the project has set. What it returns makes
    the spans; ``watch_always(spans, on=False)`` ends that.
    """
    meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
    gathered = _Gathered()
    for one in measures(show.snapshot("process")):
        create = (
            meter.create_observable_counter
            if one.kind == "counter"
            else meter.create_observable_gauge
        )
        create(
            one.name.replace("_", ".", 1),
            callbacks=[gathered.callback(one.name)],
            description=one.text,
        )
    spans = Spans(tracer_provider)
    watch_always(spans, on=True)
    return spans
