"""
How much memory this process may use, and how much of it is left.

A container's limit (cgroup v1 or v2) counts where it is lower than what the
machine has. psutil is used where it is installed; Linux needs none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

try:
    import psutil
except ImportError:  # an extra
    psutil = None  # type: ignore[assignment]

__all__ = ["Machine"]

_UNLIMITED: Final = 2**60
"""v1 says "no limit" with a number near 2**63."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The memory that this process shares; the root is another in tests."""

    root: Path = Path("/")

    def total(self) -> int:
        """Return the bytes that this process may use at most."""
        limits = [limit for limit, _ in self._groups()]
        return min([self._physical(), *limits])

    def used_percent(self) -> float | None:
        """
        Return how full the fullest is: the machine, or a group we are in.

        Pages that the kernel can drop at once (its cache of files) count as
        free. None where nothing tells.
        """
        shares = [100 * used / limit for limit, used in self._groups() if limit]
        if (machine := self._machine_percent()) is not None:
            shares.append(machine)
        return max(shares, default=None)

    def resident(self) -> int | None:
        """Return the bytes of this process that are in memory, if known."""
        if psutil is not None:
            return int(psutil.Process().memory_info().rss)
        try:
            pages = int((self.root / "proc/self/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _physical(self) -> int:
        if (found := self._meminfo()) is not None:
            return found["MemTotal"]
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def _machine_percent(self) -> float | None:
        if (found := self._meminfo()) is not None and "MemAvailable" in found:
            return 100 * (1 - found["MemAvailable"] / found["MemTotal"])
        if psutil is not None:
            return float(psutil.virtual_memory().percent)
        return None

    def _meminfo(self) -> dict[str, int] | None:
        """The fields of /proc/meminfo in bytes; None but on Linux."""
        try:
            lines = (self.root / "proc/meminfo").read_text().splitlines()
            found = {
                name: int(rest.split()[0]) * 1024
                for name, _, rest in (line.partition(":") for line in lines)
                if rest.strip()
            }
        except (OSError, ValueError):
            return None
        return found if found.get("MemTotal") else None

    def _groups(self) -> Iterator[tuple[int, int]]:
        """The limit and use of each group that has a limit, and parents'."""
        try:
            lines = (self.root / "proc/self/cgroup").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if not controllers:
                yield from self._walk(
                    "sys/fs/cgroup",
                    path,
                    "memory.max",
                    "memory.current",
                    "inactive_file",
                )
            elif "memory" in controllers.split(","):
                yield from self._walk(
                    "sys/fs/cgroup/memory",
                    path,
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "total_inactive_file",
                )

    def _walk(
        self, mount: str, path: str, limit_file: str, use_file: str, inactive: str
    ) -> Iterator[tuple[int, int]]:
        top = self.root / mount
        # Inside a container the path may be that of the host; what is mounted
        # there is then the container's own group, which the last step reads.
        parts = [part for part in path.split("/") if part and part != ".."]
        for length in range(len(parts), -1, -1):
            folder = top.joinpath(*parts[:length])
            limit = _number(folder / limit_file)
            if limit is None or limit >= _UNLIMITED:
                continue
            used = _number(folder / use_file) or 0
            yield limit, max(0, used - _field(folder / "memory.stat", inactive))


def _number(path: Path) -> int | None:
    """The number in a file; None if there is none, or it says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0
