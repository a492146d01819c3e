"""What programs get to see."""

from __future__ import annotations

import json
import sys
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import include, path
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from s3cache.metrics import telemetry
from s3cache.results.watching import watch_always
from tests.engine import Bucket, Host
from tests.testapp.models import Gear

pytestmark = [
    pytest.mark.urls(__name__),
    pytest.mark.parametrize("bucket", ["directory"], indirect=True),
]

urlpatterns = [path("s3cache/", include("s3cache.endpoints.urls"))]

LABEL = "testapp.gear"


@pytest.fixture(autouse=True)
def three_hits_and_a_miss(host: Host) -> None:
    gear = Gear.objects.create(name="a secret name")
    for _ in range(4):
        Gear.objects.get(pk=gear.pk)


def stats(*args: str) -> str:
    out = StringIO()
    call_command("s3cache_stats", *args, stdout=out)
    return out.getvalue()


def test_json(bucket: Bucket) -> None:
    with bucket.requests() as seen:
        told = Client().get("/s3cache/statistics/", {"scope": "host"}).json()
    assert seen == []
    (get,) = [one for one in told["reads"] if one["model"] == LABEL]
    assert (get["action"], get["hit_rate"]) == ("get", 0.75)
    assert told["databases"][0]["commits"] == 1
    assert {one["kind"] for one in told["requests"]} >= {"GET", "PUT"}
    assert set(told["requests"][0]["latency"]) == {"p50", "p90", "p95", "p99"}
    assert told["money"]["saved"] == pytest.approx(3 * 0.0004 / 1000)


def test_json_of_a_scope_that_there_is_not(bucket: Bucket) -> None:
    response = Client().get("/s3cache/statistics/", {"scope": "galaxy"})
    assert response.status_code == 400


def test_prometheus(bucket: Bucket) -> None:
    response = Client().get("/s3cache/metrics/")
    text = response.content.decode()
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    of = {"database": "default", "model": LABEL, "action": "get", "partition": ""}
    for event, times in (("hit", 3), ("miss", 1)):
        labels = sorted({**of, "event": event}.items())
        assert samples["s3cache_reads_total", *labels] == times
    assert samples["s3cache_commits_total", ("database", "default")] == 1
    puts = ("database", "default"), ("kind", "PUT")
    number = samples["s3cache_store_request_seconds_count", *puts]
    last = samples[
        "s3cache_store_request_seconds_bucket", *puts[:1], puts[1], ("le", "+Inf")
    ]
    assert number == last >= 1


def test_labels_have_no_keys_and_no_values(bucket: Bucket) -> None:
    for url in ("metrics", "statistics"):
        assert b"secret" not in Client().get(f"/s3cache/{url}/").content


def test_prometheus_without_its_client(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)
    response = Client().get("/s3cache/metrics/")
    assert response.status_code == 501
    assert "pip install 'django-s3cache[prometheus]'" in response.content.decode()


def test_opentelemetry(bucket: Bucket) -> None:
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader])
    spans = telemetry.instrument(meter_provider=meters, tracer_provider=tracers)
    try:
        assert Gear.objects.filter(name="a").count() == 0
    finally:
        watch_always(spans, on=False)
    data: Any = reader.get_metrics_data()
    (scope,) = data.resource_metrics[0].scope_metrics
    (reads,) = [one for one in scope.metrics if one.name == "s3cache.reads"]
    numbers = {
        (point.attributes["action"], point.attributes["event"]): point.value
        for point in reads.data.data_points
        if point.attributes["model"] == LABEL
    }
    assert numbers == {("get", "hit"): 3, ("get", "miss"): 1, ("count", "miss"): 1}
    span: Any
    (span,) = exporter.get_finished_spans()
    assert span.name == f"count {LABEL}"
    assert span.attributes["s3cache.event"] == "miss"
    assert span.end_time > span.start_time
    meters.shutdown()


# The command


def test_the_command_shows_what_people_ask_for(bucket: Bucket) -> None:
    lines = stats("--no-color").splitlines()
    (line,) = [line for line in lines if LABEL in line]
    assert line.split() == ["default", LABEL, "get", "4", "3", "1", "0", "75%"]
    assert any(line.startswith("default") and "PUT" in line for line in lines)
    assert "a month at this rate" in lines[-1]


def test_the_command_tells_programs(bucket: Bucket) -> None:
    told = json.loads(stats("--json", "--scope", "host"))
    assert told["scope"] == "host"
    assert told["hit_rate"] == 0.75


def test_the_command_begins_at_0_again(bucket: Bucket) -> None:
    assert stats("--reset") == "Counting begins at 0 again; the history stays.\n"
    assert json.loads(stats("--json"))["reads"] == []


def test_the_command_watches_until_it_is_interrupted(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("s3cache.management.commands.s3cache_stats.sleep", sleep)
    assert stats("--watch", "--no-color").count(LABEL) == 2
    assert slept == [2.0, 2.0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--watch", "0"], "--watch is 0, but must be above 0."),
        (["--database", "other"], "'other' is no database that lives in a bucket"),
    ],
)
def test_what_the_command_refuses(bucket: Bucket, args: Any, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        stats(*args)
