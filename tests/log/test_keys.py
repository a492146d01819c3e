"""Names of objects in the log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3cache.log.keys import blob_key, entry_key, entry_number

NUMBERS = st.integers(0, 10**12 - 1)


@given(NUMBERS)
def test_a_key_tells_its_number(number):
    assert entry_number(entry_key(number)) == number


@given(NUMBERS, NUMBERS)
def test_keys_sort_as_their_numbers_do(one, other):
    assert (entry_key(one) < entry_key(other)) == (one < other)


@pytest.mark.parametrize(
    "key",
    [
        "_log/",
        "_log/1",
        "_log/00000000000x",
        "_log/0000000000001",
        "_log/000000000001.bak",
        "_log/٠٠٠٠٠٠٠٠٠٠٠١",
        "_log/²²²²²²²²²²²²",
        "000000000001x",
        "_blobs/000000000001",
        "",
    ],
)
def test_what_others_put_there_is_no_entry(key):
    assert entry_number(key) is None


def test_a_blob_is_named_after_its_entry():
    assert blob_key(7, "token") == "_blobs/000000000007-token"
