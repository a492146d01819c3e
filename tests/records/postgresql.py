"""A PostgreSQL server for tests, where the machine has one."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Unavailable(Exception):
    """This machine cannot run a server."""


@contextmanager
def server(*, durable: bool = False) -> Iterator[Path]:
    """The folder with the socket of a server that nobody else uses.

    It listens nowhere else. Only a ``durable`` one waits until the disk has
    what it was told to keep. PostgreSQL does not run as root: then it is its
    own user who starts it.
    """
    programs = _programs()
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="s3cache-pg-"))
    try:
        if user is not None:
            shutil.chown(folder, user)

        def run(name: str, *arguments: str) -> None:
            subprocess.run(  # noqa: S603 - our own words
                [programs / name, *arguments],
                check=True,
                user=user,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                timeout=120,
            )

        data = str(folder / "data")
        run("initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "-N")
        fsync = "on" if durable else "off"
        settings = f"-c listen_addresses='' -c fsync={fsync} -k {folder}"
        log = str(folder / "log")
        run("pg_ctl", "-D", data, "-o", settings, "-l", log, "-w", "start")
        try:
            yield folder
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = [Path(name) for name in [shutil.which("initdb")] if name]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise Unavailable("run `make system-deps`")
    return found[-1].parent


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise Unavailable("there is no user postgres") from None
