"""Charts, and the numbers beside them."""

from __future__ import annotations

import re

import pytest
from django.utils.translation import override
from hypothesis import given
from hypothesis import strategies as st

from s3cache.dashboard import numbers
from s3cache.dashboard.charts import HEIGHT, WIDTH, Chart, Series, nice_top
from s3cache.dashboard.series import slots
from s3cache.metrics.figures import History, Point, Reads

values = st.lists(
    st.none() | st.floats(0, 1e12, allow_nan=False), min_size=1, max_size=30
)


def chart(*series: list[float | None], bars: bool = False) -> Chart:
    return Chart(
        name="c",
        title="t",
        series=[Series("s", one, number) for number, one in enumerate(series)],
        text=str,
        first="",
        last="",
        bars=bars,
    )


@given(st.floats(1e-9, 1e15))
def test_the_top_is_round_and_near(highest: float) -> None:
    top = nice_top(highest)
    assert highest <= top <= 2.5 * highest * (1 + 1e-9)
    assert f"{top:.2e}"[:4] in {"1.00", "2.00", "2.50", "5.00"}


@given(values, st.booleans())
def test_nothing_is_drawn_outside(one: list[float | None], bars: bool) -> None:
    drawn = chart(one, list(reversed(one)), bars=bars)
    for _colour, path in drawn.paths:
        for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path):
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= HEIGHT + 0.1


def test_a_line_stops_where_nothing_is_known() -> None:
    ((_colour, path),) = chart([1.0, 1.0, None, 1.0]).paths
    assert path == "M0.0 2.0L200.0 2.0M500.0 2.0h100.0"


def test_parts_of_bars_stand_on_each_other() -> None:
    (_one, low), (_two, high) = chart([3.0], [1.0], bars=True).paths
    assert low == "M60.0 120.0V48.0h480.0V120.0z"
    assert high == "M60.0 48.0V24.0h480.0V48.0z"


def test_what_is_empty_says_so() -> None:
    assert chart([None, None]).is_empty
    assert not chart([None, 0.0]).is_empty


@given(st.lists(st.integers(0, 90_000), max_size=20, unique=True))
def test_every_point_of_a_period_is_in_one_step(ages: list[int]) -> None:
    end = 1_790_000_000.0
    points = tuple(Point(start=end - age, reads=Reads(hit=1)) for age in ages)
    history = History(
        scope="fleet", span="day", step=60.0, start=0.0, end=end, points=points
    )
    steps = slots(history, "day")
    assert len(steps) == 96
    first = steps[0].start
    assert sum(one.hits for one in steps) == sum(end - age >= first for age in ages)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (numbers.percent(1.0), "100.0%"),
        (numbers.percent(0.99999), "99.9%"),
        (numbers.percent(0.00001), "0.1%"),
        (numbers.percent(0.0), "0.0%"),
        (numbers.percent(None), "–"),
        (numbers.number(1234567), "1,234,567"),
        (numbers.number(0.96, 1), "1.0"),  # rounded, not cut off
        (numbers.money(0.129), "$0.13"),
        (numbers.short(12_400), "12.4 k"),
        (numbers.short(950_000), "950 k"),
        (numbers.short(3_100_000), "3.1 M"),
        (numbers.short(0.5), "0.5"),
        (numbers.size(1536), "1.5 KB"),
        (numbers.size(None), "–"),
        (numbers.duration(0.00035), "350 µs"),
        (numbers.duration(0.0035), "3.5 ms"),
        (numbers.duration(0.25), "250 ms"),
        (numbers.duration(2.5), "2.5 s"),
        (numbers.ago(-3.0), "0 s"),
        (numbers.ago(86_400 * 3), "3 days"),
        (numbers.money(0.0), "$0.00"),
        (numbers.money(0.0042), "$0.0042"),
        (numbers.money(0.00000123), "$0.000001"),
        (numbers.money(12.3), "$12.30"),
    ],
)
def test_numbers_for_people(shown: str, text: str) -> None:
    assert shown == text


def test_numbers_for_germans() -> None:
    with override("de"):
        assert numbers.number(1234.5, 1) == "1.234,5"
