"""Smaller bytes, and a cap on what comes back from them."""

from __future__ import annotations

import gzip
import zlib
from typing import Final

import zstandard

from s3cache.caches.errors import Undecodable
from s3cache.conf import refuse

__all__ = ["COMPRESSIONS", "SUFFIXES", "compression", "pack", "unpack"]

COMPRESSIONS: Final = {"zstd": 1, "gzip": 2}
"""By name: the number in an envelope. None, or 0 there: not compressed."""

SUFFIXES: Final = {None: "", "zstd": ".zst", "gzip": ".gz"}

_LEVEL: Final = {"zstd": 3, "gzip": 6}


def compression(path: str, value: object) -> str | None:
    """Read the option: None, "zstd" or "gzip"."""
    if value is None or (isinstance(value, str) and value in COMPRESSIONS):
        return value
    raise refuse(path, value, "None, 'zstd' or 'gzip'")


def _compress(name: str, data: bytes) -> bytes:
    if name == "zstd":
        return zstandard.ZstdCompressor(level=_LEVEL[name]).compress(data)
    return gzip.compress(data, _LEVEL[name], mtime=0)


def _decompress(number: int, data: bytes, most: int) -> bytes:
    """
    Undo ``_compress`` of the method with that number.

    Never make more than `most` bytes, whatever `data` claims: raise
    `Undecodable` ("too_large") instead, and "corrupt" for what is no
    compressed data.
    """
    if number == COMPRESSIONS["zstd"]:
        return _zstd(data, most)
    if number == COMPRESSIONS["gzip"]:
        return _gzip(data, most)
    raise Undecodable("foreign", f"compression {number} is not known")


def _zstd(data: bytes, most: int) -> bytes:
    try:
        # One frame; -1: its size is not stated, which pack() never makes.
        size = zstandard.frame_content_size(data)
        if size < 0:
            raise Undecodable("corrupt", "a frame that does not state its size")
        if size > most:
            raise _too_large(most)
        # The state of a decompressor is not safe to share between threads.
        return zstandard.ZstdDecompressor(max_window_size=2**27).decompress(
            data, max_output_size=most
        )
    except zstandard.ZstdError as error:
        raise Undecodable("corrupt", f"not zstd: {error}") from error


def _gzip(data: bytes, most: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        made = stream.decompress(data, most + 1)
    except zlib.error as error:
        raise Undecodable("corrupt", f"not gzip: {error}") from error
    if len(made) > most:
        raise _too_large(most)
    if not stream.eof or stream.unused_data:
        raise Undecodable("corrupt", "gzip data with a missing or a second end")
    return made


def _too_large(most: int) -> Undecodable:
    return Undecodable("too_large", f"more than {most} bytes once decompressed")


def pack(data: bytes, name: str | None, threshold: int) -> tuple[int, bytes]:
    """
    Return the number of the method and the bytes, the smaller of both forms.

    `data` below `threshold` bytes is left alone.
    """
    if name is None or len(data) < threshold:
        return 0, data
    packed = _compress(name, data)
    return (COMPRESSIONS[name], packed) if len(packed) < len(data) else (0, data)


def unpack(number: int, data: bytes, most: int) -> bytes:
    """Undo ``pack``."""
    return _decompress(number, data, most) if number else data
