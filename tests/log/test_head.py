"""``_head``, as bytes."""

from __future__ import annotations

import json

import pytest

from s3cache.exceptions import EntryFormatError, LogDiverged
from s3cache.log.head import (
    FORMAT,
    Head,
    decode_head,
    dropped_database,
    encode_dropped,
    encode_head,
)


def test_round_trip():
    head = Head("0123abcd", trimmed=7, created="2026-01-01", probe={"delete": True})
    assert decode_head(encode_head(head)) == head


def test_that_of_a_dropped_database_is_loud():
    body = encode_dropped("0123abcd")
    assert dropped_database(body) == "0123abcd"
    with pytest.raises(LogDiverged, match="was dropped, says _head"):
        decode_head(body)
    for other in (encode_head(Head("0123abcd")), b"damaged", b""):
        assert dropped_database(other) == ""


def test_people_can_read_it():
    assert json.loads(encode_head(Head("0123abcd"))) == {
        "database": "0123abcd",
        "format": FORMAT,
        "trimmed": 0,
        "catalog": "",
        "keeper": "",
        "revision": 0,
        "created": "",
        "probe": {},
    }


def test_its_format_is_always_written():
    """Or an older release would take a newer head for its own."""
    assert "format" in json.loads(encode_head(Head("x")))


def test_fields_of_a_newer_release_do_not_stop_an_older_one():
    body = json.dumps({"database": "x", "format": FORMAT, "lease": {"host": "a"}})
    assert decode_head(body.encode()) == Head("x")


def test_fields_of_a_newer_release_survive_an_older_one():
    before = json.dumps({"database": "x", "format": FORMAT, "lease": {"host": "a"}})
    after = json.loads(encode_head(Head("x", trimmed=3), over=before.encode()))
    assert after["lease"] == {"host": "a"}
    assert after["trimmed"] == 3


def test_a_newer_format_is_refused_whatever_else_it_holds():
    body = json.dumps({"database": ["x", "y"], "format": FORMAT + 1}).encode()
    with pytest.raises(EntryFormatError) as caught:
        decode_head(body)
    assert str(caught.value) == (
        "_head has format 2; this release of s3cache reads formats up to 1. "
        "A newer release writes this database: upgrade this host."
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"database": "x"}',
        b'{"format": 1}',
        b'{"database": "", "format": 1}',
        b'{"database": "x", "format": 1, "trimmed": -1}',
        b'{"database": "x", "format": 1, "trimmed": "1"}',
        b'{"database": "x", "format": "1"}',
        b"[" * 100_000,
        b"<Error><Code>AccessDenied</Code></Error>",
    ],
)
def test_what_is_no_head_is_refused(body):
    with pytest.raises(EntryFormatError, match=r"^_head is damaged: "):
        decode_head(body)
