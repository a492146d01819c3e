"""
Which entries of a directory were changed, told to all processes for nothing.

A file of 256 numbers, mapped into the memory of every process that uses the
directory. Whoever changes entries holds the lock of their number, makes it odd
before and even after. A reader that finds the number that it found before, and
even, knows that the entry is still what it was: it reads eight bytes of memory
instead of a database. The number of a process that died in between stays odd,
and is believed by nobody, until somebody changes an entry beside.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from s3cache.mapped import map_file

__all__ = ["SLOTS", "FileChanges"]

SLOTS: Final = 256
_BYTES: Final = 8 * SLOTS


class FileChanges:
    """The numbers of one directory; of this process's own until opened."""

    def __init__(self) -> None:
        self.numbers = memoryview(bytearray(_BYTES)).cast("Q")

    def open(self, path: Path) -> None:
        """Share the numbers of `path`, which is made if it is missing."""
        descriptor, mapped = map_file(path, _BYTES)
        os.close(descriptor)
        self.numbers = memoryview(mapped).cast("Q")

    def begin(self, slot: int) -> None:
        """Say that entries are being changed; their lock is held."""
        self.numbers[slot] = (self.numbers[slot] + 1) | 1

    def end(self, slot: int) -> None:
        """Say that they have been."""
        self.numbers[slot] += 1

    def all_changed(self) -> None:
        """Let nobody believe what he remembers."""
        for slot in range(SLOTS):
            self.numbers[slot] = (self.numbers[slot] | 1) + 1
