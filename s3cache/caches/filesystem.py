"""
A cache in files, for the processes of one machine.

    LOCATION/_index.sqlite3                                   what there is
    LOCATION/<partition>/<2 hex digits>/<38 hex digits>.zst   a large entry
    LOCATION/_locks/<2 hex digits>                            who is writing
    LOCATION/_changes                                         what has changed
    LOCATION/_tmp/                                            what is changing

Entries of up to 16 KB are in the index. The name of a file is a hash of its
key, so no key leaves the directory. A file is written under another name and
renamed, so a reader sees an entry or none. Whoever writes or removes one holds
the lock of its two digits, and has a file in ``_tmp`` from before it changes
anything until it is done: what is found there while its lock is free was left
by a process that died, and its entry is dropped, so that the index and the
files say the same again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import math
import os
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from django.core.cache.backends.base import default_key_func
from django.core.exceptions import ImproperlyConfigured

from s3cache.caches.base import whole
from s3cache.caches.compression import SUFFIXES
from s3cache.caches.envelope import Opened, expiry, secret_keys
from s3cache.caches.file_changes import SLOTS, FileChanges
from s3cache.caches.file_index import Around, Index, Row, Usage, remove
from s3cache.caches.stored import LEASES, Change, Condition, StoredCache
from s3cache.conf import boolean, optional, seconds

__all__ = ["FileSystemCache"]

logger = logging.getLogger("s3cache.caches")

_PARTITION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_DEFAULT_PARTITION: Final = "_"
_EVICTED_AT_ONCE: Final = 50
_PARTITIONS_AT_ONCE: Final = 1000
"""Partitions whose hits are counted before they are written down."""
_LOOK_INTERVAL: Final = 1.0
"""Seconds between two looks whether the directory is still there."""
_REMEMBERED: Final = 512
_REMEMBERED_BYTES: Final = 4096
"""Entries, and bytes of each at most, that a process remembers."""
_IN_INDEX: Final = 16 * 2**10
"""Bytes; a larger entry is a file."""


class Directory:
    """One LOCATION: paths, locks and the index, once per process."""

    def __init__(self, root: Path, suffix: str) -> None:
        self.root = root
        self._suffix = suffix
        self._threads = [threading.Lock() for _ in range(SLOTS)]
        self._reset()

    def _reset(self) -> None:
        self._descriptors: dict[int, int] = {}
        self._opening = threading.Lock()
        self.index = Index(self.root / "_index.sqlite3")
        self.changes = FileChanges()
        self.remembered: dict[tuple[str, int], tuple[int, int, Opened]] = {}
        """By key and domain: slot, number, and the entry at that number."""
        self._ready = False
        self._next_look = 0.0
        self.next_cleanup = 0.0
        self.usage: dict[str, tuple[int, float]] = {}
        self.usage_lock = threading.Lock()

    def forked(self) -> None:
        """Use nothing of the parent's: neither its locks nor its index."""
        self._threads = [threading.Lock() for _ in range(SLOTS)]
        self._leave()

    def _leave(self) -> None:
        # Kept, or the garbage collector would close the connection, which is
        # the parent's, or removes files by names that are another's now.
        _left.append(self.index)
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._reset()

    def name_of(self, made: str) -> str:
        digest = hashlib.blake2b(made.encode(errors="surrogatepass"), digest_size=20)
        return digest.hexdigest()

    def path_of(self, name: str, partition: str) -> str:
        return f"{self.root}/{partition}/{name[:2]}/{name[2:]}{self._suffix}"

    def read(self, name: str, partition: str) -> bytes | None:
        there, data = self.index.find(name)
        if not there or data is not None:
            return data
        path = self.path_of(name, partition)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()

    def locked(self, name: str) -> _Locked:
        """Exclude all others, of every process, from the entries beside."""
        return _Locked(self, int(name[:2], 16))

    def ready(self) -> None:
        """
        Open the index, and repair what a crash left; once per process.

        Once more when somebody has removed the directory meanwhile: what is
        open then is shared with nobody.
        """
        if self._ready:
            moment = time.monotonic()
            if moment < self._next_look:
                return
            self._next_look = moment + _LOOK_INTERVAL
            if self.index.is_there():
                return
            self._start_anew()
        with self._opening:
            if self._ready:
                return
            # Nobody else's business: 0700, and the parents' modes as usual.
            self.root.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self.root, self.root / "_tmp", self.root / "_locks"):
                folder.mkdir(mode=0o700, exist_ok=True)
            self.changes.open(self.root / "_changes")
            self._mended()
            self._recover()
            if self.index.suspect:
                self._compare()
            self._ready = True

    def _start_anew(self) -> None:
        opening = self._opening
        with opening:
            if self._opening is not opening:
                return  # another thread has
            logger.warning("%s was removed, and is made anew", self.root)
            threads = self._threads
            for thread in threads:  # so that nobody is inside
                thread.acquire()
            try:
                self._leave()
            finally:
                for thread in threads:
                    thread.release()

    def _mended(self) -> None:
        """Open the index; a damaged one is made anew, and the files go."""
        try:
            self.index.open()
            if self.index.suspect:
                self.index.check()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # a full disk, a directory that is read-only
            logger.warning("%s: the index is damaged: %s", self.root, error)
            self.index.close()
            remove(self.root / "_index.sqlite3")
            self._remove_files()
            self.index.open()
            self.changes.all_changed()

    def store(
        self,
        made: str,
        name: str,
        partition: str,
        data: bytes,
        most_entries: int | None,
        most_bytes: int,
    ) -> bool:
        """
        Write what is small and has room, if no file is in the way.

        Returns whether it was written. Its lock is held.
        """
        if len(data) > _IN_INDEX:
            return False
        return self.index.store(
            name, made, partition, _until(data), data, most_entries, most_bytes
        )

    def write(
        self, made: str, name: str, partition: str, data: bytes, *, over_file: bool
    ) -> None:
        """Write an entry, which is a file so far or not; its lock is held."""
        until = _until(data)
        if len(data) <= _IN_INDEX:
            if over_file:
                self.remove(name, partition)
            self.index.record(name, made, partition, len(data), until, data)
            return
        temporary = self._under_way(name, partition)
        try:
            with open(temporary, "xb", buffering=0) as file:  # noqa: PTH123
                file.write(data)
            self.index.record(name, made, partition, len(data), until)
            target = self.path_of(name, partition)
            try:
                os.replace(temporary, target)  # noqa: PTH105
            except FileNotFoundError:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                os.replace(temporary, target)  # noqa: PTH105
        except BaseException:
            self._drop(temporary, name, partition)
            raise

    def remove(self, name: str, partition: str) -> bool:
        """Remove an entry; its lock is held."""
        if not self.index.around(name).is_file:
            return self.index.forget([name]) > 0
        temporary = self._under_way(name, partition)
        try:
            os.rename(self.path_of(name, partition), temporary)  # noqa: PTH104
        except FileNotFoundError:
            self.index.forget([name])  # somebody else has removed the file
            return False
        self.index.forget([name])
        os.unlink(temporary)  # noqa: PTH108
        return True

    def remember(
        self, key: tuple[str, int], slot: int, number: int, opened: Opened
    ) -> None:
        """Keep a small entry that was read while `number` was that."""
        if number % 2 or len(opened.body) > _REMEMBERED_BYTES:
            return
        if len(self.remembered) >= _REMEMBERED:
            self.remembered.clear()
        self.remembered[key] = slot, number, opened

    def clear(self) -> None:
        for number in range(SLOTS):
            first = f"{number:02x}"
            with self.locked(first):
                for row in self.index.files_of(first):
                    self.remove(row.name, row.partition)
                self.index.forget_rows(first)
        self.index.forget_partitions()

    def _under_way(self, name: str, partition: str) -> str:
        return f"{self.root}/_tmp/{name}~{partition}~{secrets.token_hex(4)}"

    def lock(self, number: int) -> None:
        """Take the lock of two digits; ``locked`` releases it."""
        self._threads[number].acquire()
        try:
            descriptor = self._descriptors.get(number)
            if descriptor is None:
                descriptor = self._lock_file(number)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            self._threads[number].release()
            raise
        self.changes.begin(number)

    def unlock(self, number: int) -> None:
        try:
            self.changes.end(number)
            fcntl.flock(self._descriptors[number], fcntl.LOCK_UN)
        finally:
            self._threads[number].release()

    def _lock_file(self, number: int) -> int:
        path = self.root / "_locks" / f"{number:02x}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._descriptors[number] = descriptor
        return descriptor

    def _drop(self, temporary: str, name: str, partition: str) -> None:
        """Drop an entry that was being changed; its lock is held."""
        try:
            self.index.forget([name])
            Path(self.path_of(name, partition)).unlink(missing_ok=True)
            Path(temporary).unlink(missing_ok=True)
        except (OSError, sqlite3.Error):
            # What is left in _tmp says so, to whoever starts next.
            logger.warning("%s: could not drop %s", self.root, name, exc_info=True)

    def _recover(self) -> None:
        for found in (self.root / "_tmp").iterdir():
            name, _, rest = found.name.partition("~")
            partition = rest.rpartition("~")[0]
            with self.locked(name):
                if found.exists():  # its writer is not at work, since we have the lock
                    self._drop(str(found), name, partition)

    def _compare(self) -> None:
        """Drop what only the files, or only the index, know."""
        known = self.index.file_sizes()
        wrong: list[str] = []
        for path, size in self._files():
            name = path.parent.name + path.name.removesuffix(self._suffix)
            if known.pop(name, None) != size:
                path.unlink(missing_ok=True)
                wrong.append(name)
        self.index.forget([*known, *wrong])

    def _files(self) -> Iterator[tuple[Path, int]]:
        for partition in self._partitions():
            for folder in partition.iterdir():
                with os.scandir(folder) as found:
                    for entry in found:
                        yield Path(entry.path), entry.stat().st_size

    def _partitions(self) -> Iterator[Path]:
        for path in self.root.iterdir():
            if path.is_dir() and path.name not in {"_tmp", "_locks"}:
                yield path

    def _remove_files(self) -> None:
        for partition in self._partitions():
            shutil.rmtree(partition)


class _Locked:
    """What ``locked`` returns; a generator would take three times as long."""

    __slots__ = ("_directory", "_number")

    def __init__(self, directory: Directory, number: int) -> None:
        self._directory = directory
        self._number = number

    def __enter__(self) -> None:
        self._directory.lock(self._number)

    def __exit__(self, *raised: object) -> None:
        self._directory.unlock(self._number)


def _until(data: bytes) -> float | None:
    """When an entry expires; None: never."""
    expires = expiry(data)
    return None if expires == math.inf else expires


_domains: dict[tuple[Any, ...], int] = {}
_directories: dict[tuple[str, str], Directory] = {}
_left: list[Index] = []
"""What was open when this process came to be, or was removed while it was."""


def _forked() -> None:
    for directory in _directories.values():
        directory.forked()


os.register_at_fork(after_in_child=_forked)


class FileSystemCache(StoredCache):
    """
    A cache in the directory LOCATION, shared by the processes of a machine.

    Bounded by `max_bytes` and MAX_ENTRIES: what was written first goes first.
    It survives restarts and crashes.
    """

    readers = {
        **StoredCache.readers,
        "MAX_ENTRIES": optional(whole),
        "CULL_FREQUENCY": optional(whole),
        "max_bytes": whole,
        "create_directory": boolean,
        "cleanup_interval": seconds,
        "track_usage": boolean,
    }
    defaults = {
        **StoredCache.defaults,
        "MAX_ENTRIES": None,
        "CULL_FREQUENCY": None,
        "max_bytes": 2**30,
        "create_directory": True,
        "cleanup_interval": 300,
        "track_usage": True,
    }
    failures = (OSError, sqlite3.Error)

    def __init__(
        self, location: str | os.PathLike[str], params: dict[str, Any]
    ) -> None:
        if not location:
            raise ImproperlyConfigured(
                f"s3cache.caches.{type(self).__name__} needs a LOCATION: a directory "
                "of its own."
            )
        root = Path(location).resolve()
        super().__init__(str(root), params)
        if not self.options["create_directory"] and not root.is_dir():
            raise ImproperlyConfigured(
                f"s3cache.caches.{type(self).__name__}: the LOCATION {str(root)!r} is "
                "missing, and 'create_directory' is False."
            )
        suffix = SUFFIXES[self.options["compression"]] or ".bin"
        self._directory = _directories.setdefault(
            (str(root), suffix), Directory(root, suffix)
        )
        # What one has verified, another with other keys has not.
        options = self.options
        domain = (
            *(options["signing_keys"] or secret_keys(), "/"),
            *(*options["encryption_keys"], type(self.serializer), self._most),
        )
        self._domain = _domains.setdefault(domain, len(_domains))
        self._max_bytes: int = self.options["max_bytes"]
        self._max: int | None = self.options["MAX_ENTRIES"]
        if self._max_bytes:
            self._most = min(self._most, self._max_bytes)
        if self._max == 0:
            self._most = 0

    def cleanup(self) -> int:
        """Remove expired entries now; return how many there were."""
        directory = self._directory
        directory.ready()
        removed = self._remove_rows(directory.index.expired(time.time()))
        self.counters.add("expired", removed)
        self._flush_usage()
        directory.index.forget_partitions()
        return removed

    def usage(self) -> dict[str, Usage]:
        """
        Return entries, bytes, hits and last access by partition.

        The partition of a key is what stands before its first colon.
        """
        self._directory.ready()
        self._flush_usage()
        return self._directory.index.usage()

    def _fetch(self, made: str) -> bytes | None:
        directory = self._directory
        partition = self._partition(made)
        directory.ready()
        data = directory.read(directory.name_of(made), partition)
        if data is not None:
            self._track(partition)
        return data

    def _verified(self, made: str) -> Opened | None:
        directory = self._directory
        directory.ready()
        key = made, self._domain
        remembered = directory.remembered.get(key)
        if remembered is not None:
            slot, number, opened = remembered
            if directory.changes.numbers[slot] == number:
                self._track(self._partition(made))
                return opened
        slot = int(directory.name_of(made)[:2], 16)
        number = directory.changes.numbers[slot]
        found = super()._verified(made)
        if found is not None:
            directory.remember(key, slot, number, found)
        return found

    def _track(self, partition: str) -> None:
        """Count a hit of a partition."""
        directory = self._directory
        if self.options["track_usage"]:
            with directory.usage_lock:
                hits, _ = directory.usage.get(partition, (0, 0.0))
                directory.usage[partition] = (hits + 1, time.time())
                full = len(directory.usage) >= _PARTITIONS_AT_ONCE
            if full:
                self._flush_usage()

    def _write(self, made: str, data: bytes) -> None:
        self._replace(made, lambda old: data, read=False)

    def _exchange(self, made: str, change: Change) -> None:
        self._replace(made, change)

    def _replace(self, made: str, change: Change, *, read: bool = True) -> None:
        directory = self._directory
        directory.ready()
        name, partition = directory.name_of(made), self._partition(made)
        while True:
            with directory.locked(name):
                data = change(directory.read(name, partition) if read else None)
                if data is None:
                    break
                if directory.store(
                    made, name, partition, data, self._max, self._max_bytes
                ):
                    break
                around = directory.index.around(name)
                if self._fits(around, len(data)):
                    over_file = around.is_file
                    directory.write(made, name, partition, data, over_file=over_file)
                    break
            # Without the lock: others may be making room for theirs.
            if not self._make_room(around, len(data)):
                raise OSError(errno.EFBIG, "An entry is above the limit of the cache")
        self._upkeep()

    def _erase(self, made: str, only_if: Condition | None = None) -> bool:
        directory = self._directory
        directory.ready()
        name, partition = directory.name_of(made), self._partition(made)
        with directory.locked(name):
            data = directory.read(name, partition)
            if data is None or not (only_if is None or only_if(data)):
                return False
            directory.remove(name, partition)
        return True

    def _names(self, begin: str) -> Iterator[str]:
        self._directory.ready()
        return (
            row.key for row in self._directory.index.rows() if row.key.startswith(begin)
        )

    def _erase_all(self) -> None:
        self._directory.ready()
        self._directory.clear()

    def _usage(self) -> tuple[int | None, int | None]:
        with self._failing("stats"):
            self._directory.ready()
            return self._directory.index.totals()
        return None, None

    def _partition(self, made: str) -> str:
        key = made
        if made.startswith(LEASES):
            return _DEFAULT_PARTITION
        if self.key_func is default_key_func:
            key = made[len(self.key_prefix) + 1 :].partition(":")[2]
        first, colon, _ = key.partition(":")
        return first if colon and _PARTITION.fullmatch(first) else _DEFAULT_PARTITION

    def _fits(self, around: Around, size: int) -> bool:
        replaced = around.size
        if self._max is not None and replaced is None and around.entries >= self._max:
            return False
        after = around.bytes - (replaced or 0) + size
        return not self._max_bytes or after <= self._max_bytes

    def _make_room(self, around: Around, size: int) -> bool:
        """Evict what was written first; return whether there was anything."""
        index = self._directory.index
        evicted = 0
        if self._max is not None and around.entries >= self._max:
            frequency = self.options["CULL_FREQUENCY"]
            count = around.entries - self._max + 1
            if frequency is not None:
                count = around.entries // frequency if frequency else around.entries
            evicted += self._evict(index.oldest(count))
        used = index.totals()[1] - (around.size or 0) + size
        over = used - self._max_bytes if self._max_bytes else 0
        while over > 0 and (rows := index.oldest(_EVICTED_AT_ONCE)):
            for row in rows:
                if over <= 0:
                    break
                evicted += self._evict([row])
                over -= row.size
        return evicted > 0

    def _evict(self, rows: Iterable[Row]) -> int:
        evicted = self._remove_rows(rows)
        self.counters.add("evictions", evicted)
        return evicted

    def _remove_rows(self, rows: Iterable[Row]) -> int:
        directory = self._directory
        removed = 0
        for row in rows:
            with directory.locked(row.name):
                removed += directory.remove(row.name, row.partition)
        return removed

    def _upkeep(self) -> None:
        interval = self.options["cleanup_interval"]
        moment = time.monotonic()
        if interval and moment >= self._directory.next_cleanup:
            first = not self._directory.next_cleanup
            self._directory.next_cleanup = moment + interval
            if not first:
                self.cleanup()

    def _flush_usage(self) -> None:
        directory = self._directory
        with directory.usage_lock:
            usage, directory.usage = directory.usage, {}
        if usage:
            directory.index.used(usage)
