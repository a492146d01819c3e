"""What is not ours, or is no longer whole, is never given to anybody."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from s3cache.caches.codec import MsgpackSerializer, PickleSerializer
from s3cache.caches.envelope import HEADER_BYTES, Envelope, expiry
from s3cache.caches.errors import Undecodable
from s3cache.caches.times import Times

NOW = Times(created=1000.0, expires=2000.0)
VALUE = {"name": "x" * 3000, "stock": 3}


def envelope(**options: Any) -> Envelope:
    return Envelope(options.pop("serializer", MsgpackSerializer()), **options)


def reason(read: Callable[[], Any]) -> str:
    with pytest.raises(Undecodable) as caught:
        read()
    return caught.value.reason


@pytest.mark.parametrize("compression", [None, "zstd", "gzip"])
@pytest.mark.parametrize("encryption_keys", [[], [b"secret"]])
def test_an_entry_comes_back(
    compression: str | None, encryption_keys: list[bytes]
) -> None:
    made = envelope(compression=compression, encryption_keys=encryption_keys)
    opened = made.open("key", made.seal("key", VALUE, NOW))
    assert made.value(opened) == VALUE
    assert opened.times == NOW


@given(st.data())
def test_one_changed_bit_makes_it_a_forgery(data: st.DataObject) -> None:
    made = envelope(compression="zstd")
    entry = bytearray(made.seal("key", VALUE, NOW))
    position = data.draw(st.integers(0, len(entry) - 1))
    entry[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Undecodable):
        made.open("key", bytes(entry))


@given(st.data())
def test_a_truncated_entry_is_a_miss(data: st.DataObject) -> None:
    made = envelope()
    entry = made.seal("key", VALUE, NOW)
    with pytest.raises(Undecodable):
        made.open("key", entry[: data.draw(st.integers(0, len(entry) - 1))])


def test_an_entry_serves_its_own_key_only() -> None:
    made = envelope()
    entry = made.seal("key", VALUE, NOW)
    assert reason(lambda: made.open("other", entry)) == "forged"


def test_another_secret_signs_nothing_here() -> None:
    entry = envelope(signing_keys=[b"theirs"]).seal("key", VALUE, NOW)
    assert reason(lambda: envelope().open("key", entry)) == "forged"


def test_keys_rotate() -> None:
    old = envelope(signing_keys=[b"old"]).seal("key", VALUE, NOW)
    both = envelope(signing_keys=[b"new", b"old"])
    assert both.value(both.open("key", old)) == VALUE
    new = both.seal("key", VALUE, NOW)
    only = envelope(signing_keys=[b"new"])
    assert only.value(only.open("key", new)) == VALUE
    assert reason(lambda: only.open("key", old)) == "forged"


def test_the_secret_key_and_its_fallbacks_sign() -> None:
    entry = envelope().seal("key", VALUE, NOW)
    fallbacks = [settings.SECRET_KEY]
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=fallbacks):
        made = envelope()
    assert made.value(made.open("key", entry)) == VALUE


def test_encryption_keys_rotate() -> None:
    old = envelope(encryption_keys=[b"old"]).seal("key", VALUE, NOW)
    both = envelope(encryption_keys=[b"new", b"old"])
    assert both.value(both.open("key", old)) == VALUE
    new = both.seal("key", VALUE, NOW)
    only = envelope(encryption_keys=[b"new"])
    assert only.value(only.open("key", new)) == VALUE
    assert reason(lambda: only.value(only.open("key", old))) == "forged"


def test_an_encrypted_entry_does_not_show_its_value() -> None:
    made = envelope(encryption_keys=[b"secret"])
    entry = made.seal("key", "a sentence to look for", NOW)
    assert b"sentence" not in entry
    assert entry != made.seal("key", "a sentence to look for", NOW)


def test_with_encryption_a_plain_entry_is_a_miss() -> None:
    entry = envelope().seal("key", VALUE, NOW)
    made = envelope(encryption_keys=[b"secret"])
    assert reason(lambda: made.value(made.open("key", entry))) == "foreign"


def test_an_entry_of_another_release_is_foreign() -> None:
    entry = bytearray(envelope().seal("key", VALUE, NOW))
    entry[3] = 9
    assert reason(lambda: envelope().open("key", bytes(entry))) == "foreign"


def test_a_pickle_is_not_read_unless_asked_for() -> None:
    entry = envelope(serializer=PickleSerializer()).seal("key", VALUE, NOW)
    made = envelope()
    assert reason(lambda: made.value(made.open("key", entry))) == "foreign"


class Exploding:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def test_a_forged_pickle_is_never_loaded(tmp_path: Path) -> None:
    bomb = Exploding(str(tmp_path / "ran"))
    theirs = envelope(serializer=PickleSerializer(), signing_keys=[b"theirs"])
    mine = envelope(serializer=PickleSerializer())
    entry = theirs.seal("key", bomb, NOW)
    assert reason(lambda: mine.open("key", entry)) == "forged"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_no_more_than_the_cap_is_decompressed(compression: str) -> None:
    bomb = envelope(compression=compression).seal("key", b"\0" * 10**7, NOW)
    assert len(bomb) < 20_000
    made = envelope(compression=compression, most=10**6)
    assert reason(lambda: made.value(made.open("key", bomb))) == "too_large"


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_bytes_that_are_not_compressed_are_corrupt(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = envelope(compression=compression)
    monkeypatch.setattr(
        "s3cache.caches.compression._compress", lambda name, data: b"no such thing"
    )
    entry = made.seal("key", VALUE, NOW)
    assert reason(lambda: made.value(made.open("key", entry))) == "corrupt"


@pytest.mark.parametrize(
    "compressed", [zstandard.compress, lambda data: gzip.compress(data) * 2]
)
def test_one_frame_with_its_size_is_all_there_may_be(
    compressed: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = envelope(compression="gzip")
    monkeypatch.setattr(
        "s3cache.caches.compression._compress", lambda name, data: compressed(data)
    )
    entry = made.seal("key", VALUE, NOW)
    assert reason(lambda: made.value(made.open("key", entry))) == "corrupt"


def test_other_times_keep_the_value() -> None:
    for options in ({}, {"encryption_keys": [b"secret"]}):
        made = envelope(**options)
        opened = made.open("key", made.seal("key", VALUE, NOW))
        renewed = made.renewed("key", opened, Times(1000.0, 5000.0))
        assert expiry(renewed) == 5000.0
        assert made.value(made.open("key", renewed)) == VALUE


def test_no_keys_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="'signing_keys' must not be empty"):
        envelope(signing_keys=[])


def test_what_is_no_entry_expired_long_ago() -> None:
    assert expiry(b"") < 0
    assert expiry(os.urandom(HEADER_BYTES)) < time.time()
