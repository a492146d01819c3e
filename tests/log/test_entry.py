"""Entries as bytes: every value comes back, and nothing forged gets in."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import s3cache
from s3cache.exceptions import EntryFormatError
from s3cache.log import entry as entry_module
from s3cache.log.entry import (
    COMPRESS_ABOVE,
    FORMAT,
    Entry,
    Rows,
    Sequences,
    Statement,
    blob_of,
    seal,
    token_of,
    unseal,
)
from s3cache.log.keys import blob_key, entry_key

KEY = entry_key(8)
BLOB_KEY = blob_key(8, "token")

# What SQLite can hold: Python's sqlite3 gives and takes exactly these.
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.sampled_from(
        [
            "",
            "\0",
            "a\0b",
            "\ufeff",
            "{}",
            '{"bytes": ""}',
            '"; DROP TABLE x; --',
            "../x",
            "%2F",
            "💥" * 300,
            b"",
            b"\xff\xfe\x00",
            -0.0,
            5e-324,
            1.7976931348623157e308,
            math.inf,
            -math.inf,
            2**63 - 1,
            -(2**63),
        ]
    ),
)


@st.composite
def rows(draw):
    columns = draw(st.lists(st.text(max_size=8), min_size=1, max_size=4))
    width = draw(st.integers(1, len(columns)))
    row = st.lists(VALUES, min_size=len(columns), max_size=len(columns))
    key = st.lists(VALUES, min_size=width, max_size=width)
    return Rows(
        draw(st.text(max_size=20)),
        columns[:width],
        columns,
        rows=draw(st.lists(row, max_size=4)),
        deleted=draw(st.lists(key, max_size=4)),
    )


CHANGES = st.one_of(
    rows(),
    st.builds(Statement, st.text(), st.lists(VALUES, max_size=4)),
    st.builds(
        Sequences, st.dictionaries(st.text(), st.integers(0, 2**63 - 1), max_size=3)
    ),
)
ENTRIES = st.builds(
    Entry,
    database=st.text(max_size=20),
    number=st.integers(1, 10**12 - 1),
    token=st.text(max_size=32),
    previous=st.text(max_size=32),
    host=st.text(max_size=40),
    changes=st.lists(CHANGES, max_size=4),
    transactions=st.integers(1, 1000),
)


def an_entry(*values, **fields):
    columns = [f"c{index}" for index in range(len(values))]
    rows = Rows("t", ["c0"], columns, rows=[list(values)] if values else [])
    entry = Entry("db", 8, "token", "before", "host", [rows])
    return msgspec.structs.replace(entry, **fields)


def sealed(entry, **options):
    return seal(entry, key=KEY, blob_key=BLOB_KEY, **options)


def exactly(value):
    """The value with its type and sign, where == would not see them."""
    if isinstance(value, list):
        return [exactly(one) for one in value]
    if isinstance(value, msgspec.Struct):
        return [exactly(getattr(value, name)) for name in value.__struct_fields__]
    return type(value), repr(value)


# Round trips


@given(ENTRIES)
def test_every_entry_comes_back_as_it_was(entry):
    body = sealed(entry).body
    assert exactly(unseal(body, key=KEY)) == exactly(entry)
    assert token_of(body, key=KEY) == entry.token


@given(ENTRIES)
def test_every_entry_comes_back_from_a_blob(entry):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry_module, "BLOB_ABOVE", 0)
        done = sealed(entry, signing_keys=[b"secret"])
    assert done.blob_key == blob_of(done.body, key=KEY) == BLOB_KEY
    back = unseal(done.body, key=KEY, blob=done.blob, signing_keys=[b"secret"])
    assert exactly(back) == exactly(entry)
    assert token_of(done.body, key=KEY, signing_keys=[b"secret"]) == entry.token


def test_a_nan_stays_one():
    [change] = unseal(sealed(an_entry(math.nan)).body, key=KEY).changes
    assert isinstance(change, Rows)
    assert math.isnan(change.rows[0][0])


def test_small_entries_are_two_lines_of_json():
    header, body = sealed(an_entry(1, "naïve", b"\x00")).body.split(b"\n")
    assert json.loads(header) == {"s3cache": FORMAT}
    assert json.loads(body) == {
        "database": "db",
        "number": 8,
        "token": "token",
        "previous": "before",
        "host": "host",
        "changes": [
            {
                "type": "rows",
                "table": "t",
                "key": ["c0"],
                "columns": ["c0", "c1", "c2"],
                "rows": [[1, "naïve", {"bytes": "AA=="}]],
            }
        ],
    }


def test_large_entries_are_compressed():
    done = sealed(an_entry("x" * 10 * COMPRESS_ABOVE))
    header, _newline, body = done.body.partition(b"\n")
    assert json.loads(header) == {"s3cache": FORMAT, "encoding": "zstd"}
    assert len(body) < COMPRESS_ABOVE
    assert unseal(done.body, key=KEY) == an_entry("x" * 10 * COMPRESS_ABOVE)


def test_fields_of_a_newer_release_do_not_stop_an_older_one():
    header, _newline, body = sealed(an_entry(1)).body.partition(b"\n")
    header = header[:-1] + b',"later":[1]}'
    body = body[:-1] + b',"later":{"x":1}}'
    assert unseal(header + b"\n" + body, key=KEY) == an_entry(1)


def test_a_commit_that_is_too_large_says_so(monkeypatch):
    monkeypatch.setattr(entry_module, "MAX_BODY", 1000)
    with pytest.raises(EntryFormatError, match=r"more than the 1,000 that one entry"):
        sealed(an_entry("x" * 1000))


@pytest.mark.parametrize(
    ("database", "number", "token", "follows"),
    [
        ("db", 7, "before", True),
        ("other", 7, "before", False),
        ("db", 8, "before", False),
        ("db", 6, "before", False),
        ("db", 7, "another", False),
        ("db", 7, "", False),
    ],
)
def test_an_entry_follows_one_position_only(database, number, token, follows):
    assert an_entry().follows(database, number, token) is follows


# Signatures


KEYS = [b"new", b"old"]


def test_the_first_key_signs():
    body = sealed(an_entry(1), signing_keys=KEYS).body
    assert unseal(body, key=KEY, signing_keys=[b"new"]) == an_entry(1)
    with pytest.raises(EntryFormatError):
        unseal(body, key=KEY, signing_keys=[b"old"])


def test_every_key_of_the_list_verifies():
    body = sealed(an_entry(1), signing_keys=[b"old"]).body
    assert unseal(body, key=KEY, signing_keys=KEYS) == an_entry(1)


def test_who_has_no_keys_reads_what_is_signed():
    assert unseal(sealed(an_entry(1), signing_keys=KEYS).body, key=KEY) == an_entry(1)


def test_an_entry_that_is_not_signed_is_refused():
    with pytest.raises(EntryFormatError) as caught:
        unseal(sealed(an_entry(1)).body, key=KEY, signing_keys=KEYS)
    assert str(caught.value) == (
        f"{KEY} is not signed by any of the keys in OPTIONS['signing_keys']. "
        f"Somebody else wrote it, or a key is missing from the list."
    )


def test_a_signed_entry_cannot_be_moved_to_another_number():
    body = sealed(an_entry(1), signing_keys=KEYS).body
    with pytest.raises(EntryFormatError, match="not signed"):
        unseal(body, key=entry_key(9), signing_keys=KEYS)


@given(st.data())
def test_no_byte_of_a_signed_entry_can_be_changed(data):
    body = bytearray(sealed(an_entry(1, "x"), signing_keys=KEYS).body)
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != body[at]))
    try:
        entry = unseal(bytes(body), key=KEY, signing_keys=KEYS)
    except EntryFormatError:
        return
    # White space and the like of the header: it means the same.
    assert entry == an_entry(1, "x")


def test_the_header_of_a_blob_is_signed_too(monkeypatch):
    monkeypatch.setattr(entry_module, "BLOB_ABOVE", 0)
    body = sealed(an_entry(1, token="a" * 32), signing_keys=KEYS).body
    forged = body.replace(b"a" * 32, b"b" * 32)
    assert forged != body
    with pytest.raises(EntryFormatError, match="not signed"):
        token_of(forged, key=KEY, signing_keys=KEYS)


@pytest.mark.parametrize("signature", ["", "0" * 64, "é" * 64, "\x00"])
def test_a_forged_signature_is_refused(signature):
    _header, _newline, body = sealed(an_entry(1)).body.partition(b"\n")
    header = json.dumps({"s3cache": FORMAT, "signature": signature}).encode()
    with pytest.raises(EntryFormatError, match="not signed"):
        unseal(header + b"\n" + body, key=KEY, signing_keys=KEYS)


# Damage


@given(st.binary())
def test_bytes_of_any_kind_are_an_entry_or_an_error(body):
    for read in (unseal, token_of, blob_of):
        with pytest.raises(EntryFormatError):
            read(body, key=KEY)


@given(st.binary())
def test_a_body_of_any_kind_is_an_entry_or_an_error(body):
    for encoding in ("", "zstd"):
        header = json.dumps({"s3cache": FORMAT, "encoding": encoding}).encode()
        with pytest.raises(EntryFormatError):
            unseal(header + b"\n" + body, key=KEY)


@given(st.data())
def test_a_part_of_an_entry_is_an_error(data):
    body = sealed(an_entry("x" * 5000 if data.draw(st.booleans()) else "x")).body
    part = body[: data.draw(st.integers(0, len(body) - 1))]
    with pytest.raises(EntryFormatError):
        unseal(part, key=KEY)


@pytest.mark.parametrize(
    "row",
    [
        [[1]],
        [True],
        [{}],
        [{"bytes": "&&"}],
        [{"bytes": 1}],
        [{"bytes": None}],
        [{"float": "one"}],
        [{"float": [1]}],
        [{"int": "1"}],
        [{"bytes": {"bytes": ""}}],
        [1, 2],
        [],
    ],
)
@pytest.mark.parametrize("field", ["rows", "deleted"])
def test_a_value_that_sqlite_does_not_have_is_an_error(field, row):
    change = {"type": "rows", "table": "t", "key": ["a"], "columns": ["a"]}
    with pytest.raises(EntryFormatError, match="damaged"):
        unseal(forged({**change, field: [row]}), key=KEY)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "later"},
        {"table": "t"},
        {"type": "sql", "sql": 1},
        {"type": "sequences", "values": {"t": "1"}},
        "rows",
    ],
)
def test_a_change_of_no_known_kind_is_an_error(change):
    with pytest.raises(EntryFormatError, match="damaged"):
        unseal(forged(change), key=KEY)


def test_a_newer_format_asks_for_an_upgrade():
    body = json.dumps({"s3cache": FORMAT + 1, "encoding": {"new": 1}}).encode()
    for read in (unseal, token_of, blob_of):
        with pytest.raises(EntryFormatError) as caught:
            read(body + b"\n\x00", key=KEY)
        assert str(caught.value) == (
            f"{KEY} has format 2; this release of s3cache reads formats up to 1. "
            f"A newer release writes this database: upgrade this host."
        )


def test_an_entry_that_ends_within_its_first_line_is_damaged():
    with pytest.raises(EntryFormatError, match="ends within its first line"):
        unseal(b'{"s3cache":1}', key=KEY)


def test_an_encoding_that_nobody_knows_is_refused():
    with pytest.raises(EntryFormatError, match="its encoding is 'br'"):
        unseal(b'{"s3cache":1,"encoding":"br"}\n{}', key=KEY)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(entry_module, "MAX_BODY", 10_000)
    bomb = zstandard.ZstdCompressor().compress(b" " * 10_001)
    with pytest.raises(EntryFormatError) as caught:
        unseal(b'{"s3cache":1,"encoding":"zstd"}\n' + bomb, key=KEY)
    assert str(caught.value) == (
        f"{KEY} is damaged: it would decompress to 10,001 bytes, and an entry "
        f"holds at most 10,000"
    )


def test_a_bomb_that_hides_its_size_is_refused():
    stream = zstandard.ZstdCompressor().compressobj()
    bomb = stream.compress(b" " * 10_000) + stream.flush()
    with pytest.raises(EntryFormatError, match="nobody knows how many bytes"):
        unseal(b'{"s3cache":1,"encoding":"zstd"}\n' + bomb, key=KEY)


def test_brackets_without_end_are_damage():
    for body in (b"[" * 200_000, b'{"s3cache":1}\n' + b"[" * 200_000):
        with pytest.raises(EntryFormatError):
            unseal(body, key=KEY)


# Blobs


@pytest.fixture
def with_blob(monkeypatch):
    monkeypatch.setattr(entry_module, "BLOB_ABOVE", 0)
    return sealed(an_entry("large"))


def test_another_blob_than_the_entry_names_is_refused(with_blob):
    for blob in (b"", with_blob.blob[:-1], with_blob.blob[:-1] + b" "):
        with pytest.raises(EntryFormatError, match=f"{BLOB_KEY}, the body of {KEY}"):
            unseal(with_blob.body, key=KEY, blob=blob)


def test_the_token_is_known_without_the_blob(with_blob):
    assert token_of(with_blob.body, key=KEY) == "token"


@pytest.mark.parametrize("name", ["_head", "../x", "/etc/passwd", "_log/000000000001"])
def test_an_entry_names_no_other_object_than_blobs(name):
    header = json.dumps({"s3cache": FORMAT, "blob": name}).encode()
    with pytest.raises(EntryFormatError, match="is no blob"):
        blob_of(header + b"\n", key=KEY)


def forged(*changes):
    """An entry with changes that ``seal`` would not write."""
    entry = msgspec.to_builtins(an_entry()) | {"changes": changes}
    return b'{"s3cache":1}\n' + json.dumps(entry).encode()


def test_types_are_described_before_there_are_threads() -> None:
    """Two threads that do it at once end the process, in msgspec 0.22.

    So nothing is decoded with ``type=``, which describes at the first use.
    """
    package = Path(s3cache.__file__).parent
    found = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"decode", "convert"}
        and any(keyword.arg == "type" for keyword in node.keywords)
    ]
    assert found == []
