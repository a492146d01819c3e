"""Small disks that can be filled up.

Each host of the soak has one. A tmpfs where this process may mount one, which
it may in a namespace of its own (``in_own_namespace``). Else nothing is
mounted, and a process can only be kept from making its files larger.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_INSIDE = "S3CACHE_SOAK_NAMESPACE"


def in_own_namespace(module: str, arguments: Sequence[str]) -> None:
    """Run this program again where it may mount, if that can be had.

    Returns if it cannot, or if this is it.
    """
    if os.environ.get(_INSIDE) or sys.platform != "linux":
        return
    unshare = shutil.which("unshare")
    if unshare is None:
        return
    command = [unshare, "--user", "--map-root-user", "--mount"]
    tried = subprocess.run(  # noqa: S603 - our own words
        [*command, "mount", "-t", "tmpfs", "none", "/mnt"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if tried.returncode == 0:
        sys.stdout.flush()
        environment = {**os.environ, _INSIDE: "1"}
        command += [sys.executable, "-m", module, *arguments]
        os.execve(unshare, command, environment)  # noqa: S606 - our own words


class Disk:
    """A folder, with a limit of ``size`` bytes if it could be mounted."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        folder.mkdir()
        self._filler = folder / "filler"
        mount = shutil.which("mount")
        self.is_limited = bool(
            os.environ.get(_INSIDE)
            and mount
            and subprocess.run(  # noqa: S603 - our own words
                [mount, "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)],
                check=False,
            ).returncode
            == 0
        )

    def fill(self) -> None:
        """Leave no room for anybody."""
        with contextlib.suppress(OSError), self._filler.open("ab", 0) as file:
            while file.write(bytes(65536)):
                pass
        with contextlib.suppress(OSError), self._filler.open("ab", 0) as file:
            while file.write(bytes(512)):
                pass

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)

    def remove(self) -> None:
        """Be no disk any more."""
        if self.is_limited and (umount := shutil.which("umount")):
            subprocess.run(  # noqa: S603 - our own words
                [umount, "--lazy", str(self.folder)], check=False
            )
