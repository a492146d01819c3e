"""Figures in a page of the documentation, put there by who measured them."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path


def circumstances(load: float) -> str:
    """When and where something was measured, in a line.

    ``load`` is that of the machine before it began.
    """
    return (
        f"{datetime.now(UTC).date().isoformat()}, {platform.system()}, "
        f"{os.cpu_count()} processors, load {load:.1f} before it began, "
        f"Python {platform.python_version()}"
    )


def put(text: str, section: str, path: Path) -> None:
    """Replace what was measured before in a section of a page.

    The page has a comment at its beginning, and one at its end.
    """
    begin, end = (f"<!-- benchmarks.{section}: {word} -->" for word in ("begin", "end"))
    head, found, rest = path.read_text().partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path} has no {begin} that is followed by {end}")
    path.write_text(f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}")
