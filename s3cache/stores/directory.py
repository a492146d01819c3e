"""
A local directory as a store: the embedded default, with a bucket's guarantees.

    <root>/shop_product/rows/1.json    the object with that key
    <root>/.spool/                     bodies on their way in
    <root>/.lock                       held while a condition is checked

Objects are never written in place. A body is spooled, synced, and then gets
its name in one step: ``link`` for put-if-absent, which the kernel decides
without any lock; ``rename`` under a lock for everything else that replaces or
removes, so that nothing comes between a condition and its effect. Readers take
no lock, and see a whole object or none.

Each segment of a key becomes a name that every file system keeps apart: lower
case ASCII letters, digits and ``-_%=+@,.`` stand for themselves, any other
byte of the UTF-8 form and a leading dot become ``~xx``. So case twins stay
apart on a file system that ignores case, as do the forms of Unicode on one
that normalizes; no key can name a hidden file or leave the root. The empty
segment is ``~``; what exceeds 80 bytes of a segment continues in a directory
whose name ends in ``~``.

What a directory cannot hold, and refuses with 400: an object ``a`` next to an
object ``a/b``. Keys that this project makes are never like that.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import heapq
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from s3cache.stores.base import Answer, Listed, Store

__all__ = ["DirectoryStore"]

_UNSAFE = re.compile(rb"[^a-z0-9\-_%=+@,.]|\A\.")
_ESCAPED = re.compile(rb"~([0-9a-f]{2})")
_NAME_BYTES: Final = 80
"""Bytes of a segment in one name: escaped at worst 240, of the usual 255."""

_SPOOL = ".spool"
_LOCK = ".lock"
_ABANDONED_AFTER: Final = 24 * 3600.0
"""Seconds until a spooled body, whose writer must have died, is removed."""

# macOS: fsync() alone leaves the data in the drive's cache.
_F_FULLFSYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)

_STATUS: Final = {
    errno.EACCES: 403,
    errno.EPERM: 403,
    errno.EROFS: 403,
    errno.ENAMETOOLONG: 400,
    errno.ENOSPC: 413,
    errno.EDQUOT: 413,
    errno.EFBIG: 413,
    errno.ENOTSUP: 501,
    errno.ENOSYS: 501,
}


class DirectoryStore(Store):
    """
    Objects as files under ``root``, which the first write creates.

    Safe between threads and between processes of one machine, and after a
    power failure: a write has returned 200 only when file and directory entry
    are on the disk. ETags are hashes of the content. The clock is this
    machine's. Files are private to the user unless modes are given.
    """

    durable: bool = True
    """Whether writes wait for the disk. Tests may turn it off."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        file_mode: int | None = None,
        directory_mode: int | None = None,
    ) -> None:
        self.root = Path(root).absolute()
        self._file_mode = 0o600 if file_mode is None else file_mode
        self._directory_mode = 0o700 if directory_mode is None else directory_mode
        self._seen = False
        super().__init__(str(self.root))

    def at(self, location: str) -> DirectoryStore:
        """Another directory, with the same modes."""
        return type(self)(
            location, file_mode=self._file_mode, directory_mode=self._directory_mode
        )

    def _get(self, key: str) -> Answer:
        try:
            with self._path(key).open("rb") as file:
                body = file.read()
                modified = os.fstat(file.fileno()).st_mtime
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return self._missing()
        except OSError as error:
            return _answer(error)
        self._seen = True
        return Answer(
            200, body=body, etag=_etag(body), date=time.time(), modified=modified
        )

    def _put(
        self,
        key: str,
        body: bytes,
        if_none_match: bool,
        if_match: str,
        content_type: str,
        metadata: Mapping[str, str],
    ) -> Answer:
        path = self._path(key)
        happened = False
        try:
            if vanished := self._vanished():
                return vanished
            with self._spooled(body) as spooled:
                self._make_directory(path.parent)
                if if_none_match:
                    if refused := _link(spooled, path):
                        return refused
                else:
                    with self._alone():
                        if if_match and (refused := self._unmatched(path, if_match)):
                            return refused
                        spooled.replace(path)
                happened = True
                self._sync_directory(path.parent)
        except FileExistsError:
            if path.is_dir() or not path.parent.is_dir():
                return _twin(key)
            return Answer(412, date=time.time(), message="PreconditionFailed: exists")
        except (IsADirectoryError, NotADirectoryError):
            return _twin(key)
        except OSError as error:
            return _answer(error, happened=happened)
        return Answer(200, etag=_etag(body), date=time.time())

    def _delete(self, key: str, if_match: str) -> Answer:
        path = self._path(key)
        happened = False
        try:
            if vanished := self._vanished():
                return vanished
            if not self.root.is_dir():
                return self._missing() if if_match else Answer(200, date=time.time())
            with self._alone():
                if if_match and (refused := self._unmatched(path, if_match)):
                    return refused
                happened = _unlink(path)
            if happened:
                self._sync_directory(path.parent)
        except OSError as error:
            return _answer(error, happened=happened)
        return Answer(200, date=time.time())

    def _delete_many(self, keys: Sequence[str]) -> Answer:
        changed: set[Path] = set()
        try:
            if vanished := self._vanished():
                return vanished
            if not self.root.is_dir():
                return Answer(200, date=time.time())
            with self._alone():
                for key in keys:
                    path = self._path(key)
                    if _unlink(path):
                        changed.add(path.parent)
            for directory in changed:
                self._sync_directory(directory)
        except OSError as error:
            return _answer(error, happened=bool(changed))
        return Answer(200, date=time.time())

    def _list(self, prefix: str, start_after: str, limit: int) -> Answer:
        try:
            if vanished := self._vanished():
                return vanished
            names = heapq.nsmallest(
                limit + 1,
                _walk(self.root, b"", prefix.encode(), start_after.encode()),
            )
            page = []
            for name in names[:limit]:
                key = name.decode()
                found = self._get(key)
                if found.ok and found.modified is not None:
                    page.append(
                        Listed(key, found.etag, len(found.body), found.modified)
                    )
                elif found.status != 404:  # Gone since; anything else is an error.
                    return found
        except OSError as error:
            return _answer(error)
        if len(names) > limit and not page:
            # All gone since; an empty page that has more has no last key.
            return self._list(prefix, names[limit - 1].decode(), limit)
        return Answer(200, keys=tuple(page), more=len(names) > limit, date=time.time())

    def _path(self, key: str) -> Path:
        return self.root.joinpath(
            *(name for segment in key.split("/") for name in _names(segment))
        )

    def _missing(self) -> Answer:
        """The answer where there is no such file."""
        return self._vanished() or Answer(404, date=time.time(), message="NoSuchKey")

    def _vanished(self) -> Answer | None:
        """
        The answer where the root was there and is gone, or None.

        Unmounted or removed, it says nothing about its objects, and a write
        must not make a new one in its place.
        """
        if self._seen and not self.root.is_dir():
            return Answer(410, message=f"Gone: the directory {self.root} has vanished")
        return None

    def _unmatched(self, path: Path, if_match: str) -> Answer | None:
        """The answer to a condition that does not hold, or None."""
        try:
            current = _etag(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return self._missing()
        if current == if_match:
            return None
        return Answer(412, date=time.time(), message="PreconditionFailed: another ETag")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """
        Hold the lock that all threads and processes on this root share.

        A descriptor per use: threads exclude each other only if each has its
        own, and none is shared with a parent after a fork.
        """
        descriptor = os.open(
            self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, self._file_mode
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Closing is not enough: a child that was forked meanwhile has
                # a copy, and would keep the lock for as long as it lives.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    @contextmanager
    def _spooled(self, body: bytes) -> Iterator[Path]:
        """A file with ``body``, on the disk, without a name among the keys."""
        spool = self.root / _SPOOL
        if not spool.is_dir():
            self._make_directory(spool)
        if not self._seen:
            self._seen = True
            _remove_abandoned(spool)
        path = spool / f"{os.getpid()}-{secrets.token_hex(8)}"
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._file_mode
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
                file.flush()
                self._sync(file.fileno())
            yield path
        finally:
            with suppress(OSError):  # It was renamed, or will be swept up later.
                path.unlink(missing_ok=True)

    def _make_directory(self, directory: Path) -> None:
        """Make a directory and its missing parents, each on the disk."""
        if directory.is_dir():
            return
        if directory != directory.parent:
            self._make_directory(directory.parent)
        try:
            directory.mkdir(self._directory_mode)
        except FileExistsError:
            if not directory.is_dir():
                raise
        self._sync_directory(directory.parent)

    def _sync_directory(self, directory: Path) -> None:
        if not self.durable:
            return
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._sync(descriptor)
        finally:
            os.close(descriptor)

    def _sync(self, descriptor: int) -> None:
        if not self.durable:
            return
        if _F_FULLFSYNC is None:
            os.fsync(descriptor)
        else:
            fcntl.fcntl(descriptor, _F_FULLFSYNC)


def _names(segment: str) -> list[str]:
    """The names for one segment of a key, all but the last of directories."""
    raw = segment.encode()
    chunks = [raw[at : at + _NAME_BYTES] for at in range(0, len(raw) or 1, _NAME_BYTES)]
    return [*(f"{_escape(chunk)}~" for chunk in chunks[:-1]), _escape(chunks[-1])]


def _escape(raw: bytes) -> str:
    return _UNSAFE.sub(lambda found: b"~%02x" % found[0][0], raw).decode() or "~"


def _unescape(name: str) -> bytes:
    return _ESCAPED.sub(
        lambda found: bytes([int(found[1], 16)]), os.fsencode(name.removesuffix("~"))
    )


def _walk(directory: Path, base: bytes, prefix: bytes, after: bytes) -> Iterator[bytes]:
    """
    The keys with that prefix and above ``after`` in a directory, unordered.

    ``base`` is what all of them start with. Order is the caller's: with
    ``a-b`` before ``a/b`` and long segments in directories of their own, the
    order of keys is not one in which directories could be visited. What others
    left there, with names that ``_escape`` never makes, is passed over.
    """
    try:
        with os.scandir(directory) as scan:
            entries = list(scan)
    except FileNotFoundError:
        return
    for entry in entries:
        raw = _unescape(entry.name)
        if entry.is_dir(follow_symlinks=False):
            if _escape(raw) == entry.name:
                below = base + raw + b"/"
            elif raw and f"{_escape(raw)}~" == entry.name:
                below = base + raw
            else:
                continue
            wanted = below.startswith(prefix) or prefix.startswith(below)
            passed = below < after and not after.startswith(below)
            if wanted and not passed:
                yield from _walk(Path(entry.path), below, prefix, after)
        elif _escape(raw) == entry.name:
            key = base + raw
            if key.startswith(prefix) and key > after and _is_text(key):
                yield key


def _is_text(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def _link(spooled: Path, path: Path) -> Answer | None:
    """Give a body its name; an answer where the file system cannot."""
    try:
        path.hardlink_to(spooled)
    except OSError as error:
        if error.errno in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}:
            return Answer(
                501,
                message="NotImplemented: the file system has no hard links, "
                "without which a directory cannot be a store",
            )
        raise
    return None


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _unlink(path: Path) -> bool:
    """Remove a file; whether there was one."""
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        if path.is_dir():  # EISDIR on Linux, EPERM on macOS
            return False
        raise
    return True


def _remove_abandoned(spool: Path) -> None:
    """Sweep up what writers that were killed left behind."""
    with suppress(OSError), os.scandir(spool) as entries:
        for entry in entries:
            if time.time() - entry.stat().st_mtime > _ABANDONED_AFTER:
                Path(entry.path).unlink(missing_ok=True)


def _answer(error: OSError, *, happened: bool = False) -> Answer:
    """
    The answer for a failed system call.

    Where it certainly had no effect a 4xx says so, also for a full disk; what
    failed after the object had its name is a 500, whose outcome is unclear.
    """
    code = errno.errorcode.get(error.errno or 0, "OSError")
    status = 500 if happened else _STATUS.get(error.errno or 0, 500)
    return Answer(status, message=f"{code}: {error.strerror or error}")


def _twin(key: str) -> Answer:
    return Answer(
        400,
        message=f"InvalidKey: a directory cannot hold {key!r} next to objects whose "
        "keys are a prefix of it, or it of theirs, up to a slash",
    )
