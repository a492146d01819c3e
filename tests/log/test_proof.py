"""What an answer proves."""

from __future__ import annotations

import pytest

from s3cache.exceptions import (
    EntryFormatError,
    LogDiverged,
    StoreUnavailable,
)
from s3cache.log import entry as entry_module
from s3cache.log.effects import Get, Position
from s3cache.log.entry import Entry, seal
from s3cache.log.head import Head, encode_head
from s3cache.log.keys import HEAD, blob_key, entry_key
from s3cache.log.proof import (
    BELIEVED_FOR,
    believable,
    is_unclear,
    open_entry,
    read_head,
)
from s3cache.stores.base import Answer

from .script import play

NOW = 1_700_000_000.0
POSITION = Position("db", 7, "token", '"etag"', NOW)


def a_head(database="db", trimmed=0):
    return Get(HEAD), Answer(200, encode_head(Head(database, trimmed=trimmed)))


# believable


@pytest.mark.parametrize("after", [0.0, 1.0, BELIEVED_FOR, -1.0, -BELIEVED_FOR])
@pytest.mark.parametrize("status", [200, 404, 412])
def test_an_answer_soon_after_the_last_proof_counts(status, after):
    assert play(believable(POSITION, Answer(status, date=NOW + after)))


LATE = [
    Answer(404, date=NOW + BELIEVED_FOR + 1),
    Answer(404, date=NOW - BELIEVED_FOR - 1),
    Answer(404, date=None),
    Answer(404, date=0.0),
]


@pytest.mark.parametrize("answer", LATE)
@pytest.mark.parametrize(
    ("head", "counts"),
    [
        (a_head(trimmed=0), True),
        (a_head(trimmed=7), True),
        (a_head(trimmed=8), False),
        (a_head("another", trimmed=0), False),
    ],
)
def test_a_late_answer_counts_if_the_trim_has_not_reached_it(answer, head, counts):
    assert play(believable(POSITION, answer), head) is counts


def test_a_head_that_is_gone_is_a_disaster():
    with pytest.raises(LogDiverged, match=r"^_head is missing: the bucket was emptied"):
        play(read_head(), (Get(HEAD), Answer(404)))


def test_a_head_that_cannot_be_read_proves_nothing():
    with pytest.raises(StoreUnavailable):
        play(believable(POSITION, LATE[0]), (Get(HEAD), Answer(503)))


# open_entry

ENTRY = Entry("db", 8, "next", "token", "host", [])


def sealed():
    return seal(ENTRY, key=entry_key(8), blob_key=blob_key(8, "next"))


@pytest.fixture
def with_blob(monkeypatch):
    monkeypatch.setattr(entry_module, "BLOB_ABOVE", 0)
    return sealed()


def test_a_small_entry_needs_no_request():
    assert play(open_entry(Answer(200, sealed().body), 8, ())) == ENTRY


def test_the_blob_of_an_entry_is_read(with_blob):
    opened = play(
        open_entry(Answer(200, with_blob.body), 8, ()),
        (Get(with_blob.blob_key), Answer(200, with_blob.blob)),
    )
    assert opened == ENTRY


def test_a_blob_may_be_gone_with_its_trimmed_entry(with_blob):
    steps = open_entry(Answer(200, with_blob.body), 8, ())
    gone = Get(with_blob.blob_key), Answer(404)
    assert play(steps, gone, a_head(trimmed=8)) is None


def test_a_blob_that_is_missing_is_told(with_blob):
    steps = open_entry(Answer(200, with_blob.body), 8, ())
    gone = Get(with_blob.blob_key), Answer(404)
    with pytest.raises(
        EntryFormatError, match=r"-next, the body of _log/.* is missing"
    ):
        play(steps, gone, a_head(trimmed=7))


def test_a_blob_that_cannot_be_read_is_the_stores_failure(with_blob):
    steps = open_entry(Answer(200, with_blob.body), 8, ())
    with pytest.raises(StoreUnavailable):
        play(steps, (Get(with_blob.blob_key), Answer(0)))


# What went wrong


@pytest.mark.parametrize("status", [0, 408, 409, 429, 500, 502, 503, 504, 599])
def test_a_request_that_may_have_had_its_effect_is_unclear(status):
    assert is_unclear(Answer(status))


@pytest.mark.parametrize("status", [200, 304, 400, 403, 404, 410, 411, 412, 413])
def test_the_rest_is_clear(status):
    assert not is_unclear(Answer(status))
