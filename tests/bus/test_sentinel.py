"""Messages where a Sentinel says which Redis is the master, and it changes."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches

from s3cache.bus.bus import Bus
from tests.bus.conftest import until


def free_port() -> int:
    """A port of the loopback interface that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def ask(port: int, *words: str) -> str:
    """What a server answers, as it comes; "" if there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(f"{' '.join(words)}\r\n".encode())
            return connection.recv(65536).decode()
    except OSError:
        return ""


class Group:
    """A master, its replica, and a Sentinel that watches both."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.first, self.second, self.sentinel = (free_port() for _ in range(3))
        self._start(self.first)
        self._start(self.second, "--replicaof", "127.0.0.1", str(self.first))
        until(lambda: "master_link_status:up" in ask(self.second, "INFO replication"))
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"port {self.sentinel}\n"
            f"sentinel monitor those 127.0.0.1 {self.first} 1\n"
            "sentinel down-after-milliseconds those 200\n"
            "sentinel failover-timeout those 2000\n"
        )
        self._start(self.sentinel, str(settings), "--sentinel")
        until(lambda: str(self.second) in ask(self.sentinel, "SENTINEL replicas those"))

    def _start(self, port: int, *arguments: str) -> None:
        if not arguments or arguments[0].startswith("--"):
            usual = [
                "--port",
                str(port),
                "--save",
                "",
                "--repl-diskless-sync-delay",
                "0",
            ]
            arguments = (*usual, *arguments)
        self._processes[port] = subprocess.Popen(  # noqa: S603 - our own words
            [self._program, *arguments],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: ask(port, "PING").startswith("+PONG"))

    def kill(self, port: int) -> None:
        """End one of them, as a crash does."""
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for port in list(self._processes):
            self.kill(port)


@pytest.fixture
def group(redis_program: str, tmp_path: Path) -> Iterator[Group]:
    made = Group(redis_program, tmp_path)
    yield made
    made.stop()


@pytest.fixture
def bus(group: Group, settings: Any) -> Iterator[Bus]:
    settings.DJANGO_REDIS_CONNECTION_FACTORY = (
        "django_redis.pool.SentinelConnectionFactory"
    )
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "sentinel": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": "redis://those/0",
            "OPTIONS": {
                "CLIENT_CLASS": "django_redis.client.SentinelClient",
                "SENTINELS": [("127.0.0.1", group.sentinel)],
            },
        },
    }
    made = Bus("sentinel")
    yield made
    made.end()
    caches.close_all()


def test_after_a_failover_the_new_master_is_used(group: Group, bus: Bus) -> None:
    heard: list[bytes] = []
    missed: list[float] = []
    listening = bus.subscribe(
        "a", heard.append, lambda: missed.append(time.monotonic())
    )
    until(lambda: listening.hears)
    bus.publish("a", b"1")
    until(lambda: heard == [b"1"])
    group.kill(group.first)
    until(lambda: not listening.hears)
    until(lambda: listening.hears)
    assert "role:master" in ask(group.second, "INFO replication")
    assert len(missed) == 3  # at the beginning, at the loss, and anew
    bus.publish("a", b"2")
    until(lambda: heard[-1:] == [b"2"])
