"""What kind of file system a path is on, where Linux says so."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["IN_MEMORY", "ON_NETWORK", "file_system"]

MOUNTS = Path("/proc/mounts")
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
ON_NETWORK: Final = frozenset(
    {
        "9p",
        "afs",
        "ceph",
        "cifs",
        "gcsfuse",
        "gfs2",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "rclone",
        "s3fs",
        "smb3",
        "smbfs",
        "sshfs",
        "virtiofs",
    }
)


def file_system(path: Path) -> str | None:
    """Return the kind of file system, None: nobody says."""
    try:
        mounts = MOUNTS.read_text()
    except OSError:
        return None
    path = path.resolve()
    found, kind = Path(), None
    for line in mounts.splitlines():
        _, mounted, name, *_ = line.split(" ")
        # Spaces and the like are written as octal escapes. The last mount on
        # a directory hides those before it.
        directory = Path(mounted.encode().decode("unicode_escape"))
        if path.is_relative_to(directory) and len(directory.parts) >= len(found.parts):
            found, kind = directory, name.removeprefix("fuse.")
    return kind
