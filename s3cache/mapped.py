"""Small files that processes map into their memory, to share numbers."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

__all__ = ["map_file"]


def map_file(path: Path, size: int) -> tuple[int, mmap.mmap]:
    """
    Open and map a file, which is made if it is missing: descriptor and map.

    It has its blocks on the disk before it is mapped. Of a file with a hole,
    as truncating makes it longer, a disk that is full gives no block later:
    then it is not an error that whoever touches the memory gets, but SIGBUS,
    which ends the process. Raises ``OSError``, also where there is no room.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _has_blocks(descriptor, size) and os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        return descriptor, mmap.mmap(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise


def _has_blocks(descriptor: int, size: int) -> bool:
    """Give the file its blocks, where the system can.

    What is in it stays, whoever writes meanwhile; so this is done each time:
    the file may have been made by a release that truncated.
    """
    if not hasattr(os, "posix_fallocate"):
        return False  # macOS
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return False  # some file systems, where the C library does not help
        raise
    return True
