"""Any result survives as bytes, with the types of its values."""

from __future__ import annotations

import datetime as dt
import decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cache.replica.results import Result
from s3cache.results.codec import Undecodable, decode, encode

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)
columns = st.sampled_from(
    [
        plain,
        st.none() | st.datetimes(),
        st.none() | st.dates(),
        st.none() | st.times(),
        st.none() | st.datetimes(timezones=st.just(dt.UTC)),
    ]
)


@st.composite
def results(draw: st.DrawFn) -> Result:
    kinds = draw(st.lists(columns, min_size=1, max_size=4))
    rows = draw(st.lists(st.tuples(*kinds), max_size=5))
    return Result.of([f"column {n}" for n in range(len(kinds))], rows)


@given(results())
def test_a_result_survives(result: Result) -> None:
    data = encode(result)
    assert data is not None
    found = decode(data)
    assert found.description == result.description
    assert found.fetchall() == result.fetchall()
    assert [[type(v) for v in row] for row in found.rows] == [
        [type(v) for v in row] for row in result.rows
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [(decimal.Decimal(1),)],
        [(dt.date(2026, 1, 1),), (dt.time(),)],
        [(dt.date(2026, 1, 1),), (1,)],
        [([1],)],
        [(memoryview(b"x"),)],
    ],
)
def test_values_of_other_types_are_not_kept(rows: list[tuple[object, ...]]) -> None:
    assert encode(Result.of(["x"], rows)) is None


@pytest.mark.parametrize(
    "data",
    [
        None,
        "text",
        b"",
        b"rubbish",
        b"\x93\x91\xa1x\xa1d\x91\x91\xa5never",
        b"\x93\x91\xa1x\xa1?\x91\x91\xa1x",
        b"\x93\x91\xa1x\xa2dd\x91\x91\xa1x",
    ],
)
def test_what_is_no_result_is_refused(data: object) -> None:
    with pytest.raises(Undecodable):
        decode(data)
