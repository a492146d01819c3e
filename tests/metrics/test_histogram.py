"""Durations in buckets."""

from hypothesis import given
from hypothesis import strategies as st

from s3cache.metrics.histogram import (
    MOST_BUCKETS,
    Histogram,
    bucket_of,
    upper_bound,
)

durations = st.floats(min_value=0.0, max_value=4000.0)


def histogram_of(seconds):
    counts: dict[int, int] = {}
    for one in seconds:
        bucket = bucket_of(one)
        counts[bucket] = counts.get(bucket, 0) + 1
    return Histogram(counts)


@given(durations)
def test_a_bucket_says_how_long_within_an_eighth_and_a_microsecond(seconds):
    assert seconds < upper_bound(bucket_of(seconds)) <= seconds * 1.125 + 2e-6


@given(durations, durations)
def test_what_takes_longer_is_in_no_earlier_bucket(one, other):
    assert (bucket_of(one) <= bucket_of(other)) or one > other


def test_there_are_so_many_buckets():
    assert bucket_of(1e9) == MOST_BUCKETS - 1
    assert bucket_of(-1.0) == 0


@given(st.lists(durations, min_size=1, max_size=50), st.integers(1, 100))
def test_percentiles(seconds, percent):
    told = histogram_of(seconds).percentile(percent)

    exact = sorted(seconds)[-(-len(seconds) * percent // 100) - 1]
    assert exact < told <= exact * 1.125 + 2e-6


def test_nothing_was_measured():
    assert Histogram().percentile(99) == 0.0
    assert Histogram().number == 0


@given(st.lists(durations), st.lists(durations))
def test_histograms_add_up(some, others):
    together = histogram_of(some) + histogram_of(others)

    assert together == histogram_of(some + others)
    assert together.number == len(some) + len(others)
