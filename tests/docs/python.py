"""Runs Python programs, as the pages do, without their imports each time.

A program is a fork of a process that has imported what all of them need, and
has done nothing else: it has no settings, no connection and no thread. A page
starts up to eleven, which would import for a second each.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.docs.pages import ROOT

#: All that takes long and can be imported without settings.
_IMPORTED: Final = (
    "django.contrib.admin",
    "django.core.management",
    "django.test",
    "s3cache.dashboard.pages",
    "s3cache.db.base",
    "s3cache.doctor",
    "s3cache.keeper.run",
    "s3cache.management.base",
    "s3cache.middleware",
    "s3cache.warming",
    "storages.backends.s3",
)


class Python:
    """Starts programs, one at a time; `close` it in the end."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603  (this Python, this file)
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        arguments: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        input: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """What ``python *arguments`` comes to, in a directory."""
        orders, answers = self._process.stdin, self._process.stdout
        if orders is None or answers is None:
            raise RuntimeError("it was started with pipes")
        with tempfile.TemporaryDirectory(prefix="s3cache-docs-") as name:
            streams = [Path(name, one) for one in ("in", "out", "err")]
            streams[0].write_text(input)
            order = {
                "arguments": [*arguments],
                "directory": str(directory),
                "environment": {**environment},
                "streams": [*map(str, streams)],
            }
            orders.write(f"{json.dumps(order)}\n")
            orders.flush()
            status = int(answers.readline())
            return subprocess.CompletedProcess(
                [*arguments], status, streams[1].read_text(), streams[2].read_text()
            )

    def close(self) -> None:
        """End the process; its programs have ended."""
        self._process.communicate()


def _next_program() -> dict[str, Any] | None:
    """In a child: what it is to run. In the parent, in the end: None."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            order: dict[str, Any] = json.loads(line)
            return order
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201
    return None


def _become(order: dict[str, Any]) -> None:
    """Be a program that was started with that, and run it."""
    modes = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
    for number, (path, mode) in enumerate(zip(order["streams"], modes, strict=True)):
        opened = os.open(path, mode, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  (the other has read ahead)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    # A page may change a file twice within the second that bytecode goes by.
    sys.dont_write_bytecode = True
    begin, *rest = order["arguments"]
    where = order["directory"] if begin == "-m" else str(Path(begin).parent.resolve())
    sys.path[:1] = [where, *order["environment"]["PYTHONPATH"].split(os.pathsep)]
    if begin == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [begin, *rest]
        runpy.run_path(begin, run_name="__main__")


if __name__ == "__main__":
    for _module in _IMPORTED:
        importlib.import_module(_module)
    if (_order := _next_program()) is not None:
        _become(_order)
