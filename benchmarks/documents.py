"""Figures in a page of the documentation, put there by who measured them."""

from __future__ import annotations

import argparse
import json
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


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Let the caller of a benchmark say where its figures go; see ``give``."""
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="the result for programs")
    add(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="put the tables into this page, between its two comments",
    )


def give(
    options: argparse.Namespace, section: str, tables: str, figures: object
) -> None:
    """Print ``tables``, and write what ``add_outputs`` was asked for."""
    print(tables)
    if options.json is not None:
        options.json.write_text(json.dumps(figures))
    if options.markdown is not None:
        put(tables, section, options.markdown)
