"""
A bucket over real HTTP: moto, made to behave as S3 does under pressure.

Moto checks a condition and writes with time in between, reads objects that are
just being replaced, and never answers 403, 409 or 503. So requests pass a lock
here, one at a time, and faults can be put in front.
"""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import boto3
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from storages.backends.s3 import S3Storage
from werkzeug.serving import make_server

from tests.faults.rules import ALWAYS, Fault, Lost, Rule, Rules

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


@dataclass(frozen=True)
class Seen:
    """A request as it arrived. ``path`` is /bucket/key, unquoted."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


class SharedSessionStorage(S3Storage):
    """
    An S3Storage whose clients are cheap: 10 ms instead of 300.

    What takes the time is a session's reading of the description of S3.
    """

    def _create_session(self) -> boto3.Session:
        return _session(self.access_key, self.secret_key)


@functools.cache
def _session(access_key: str | None, secret_key: str | None) -> boto3.Session:
    return boto3.Session(access_key, secret_key)


class S3Server:
    """Moto on a random port of the loopback interface, in threads."""

    latency = 0.0
    """Seconds that every answer takes at least."""

    def __init__(self) -> None:
        self._moto: Any = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, self, threaded=True, request_handler=_Handler
        )
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, daemon=True, name="moto"
        )
        self._one_at_a_time = threading.Lock()
        self.faults: Rules[Fault] = Rules()
        self._recordings: list[list[Seen]] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def create_bucket(self, name: str) -> None:
        client = _session("test", "test").client(
            "s3", endpoint_url=self.address, region_name="us-east-1"
        )
        client.create_bucket(Bucket=name)

    @contextmanager
    def recording(self) -> Iterator[list[Seen]]:
        """The requests that arrive meanwhile, answered by a fault or not."""
        seen: list[Seen] = []
        self._recordings.append(seen)
        try:
            yield seen
        finally:
            # By identity: two recordings may be equal.
            self._recordings = [kept for kept in self._recordings if kept is not seen]

    @contextmanager
    def fault(
        self,
        method: str = "",
        path: str = "",
        *,
        status: int = 200,
        code: str = "",
        body: bytes | None = None,
        lost: Lost = "",
        delay: float = 0.0,
        date: str = "",
        times: int = ALWAYS,
    ) -> Iterator[None]:
        """
        Treat requests of that method, whose path contains ``path``, badly.

        How is what a ``Fault`` says.
        """
        fault = Fault(status, code, body, lost, delay=delay, date=date)
        with self.faults.during(Rule(fault, method, path, times)):
            yield

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        seen = _seen(environ)
        for recording in self._recordings:
            recording.append(seen)
        if self.latency:
            time.sleep(self.latency)
        fault = self.faults.strike(seen.method, seen.path)
        start_response = _dated(start_response, fault)
        if fault is None:
            return self._answer(environ, start_response)
        if fault.delay:
            time.sleep(fault.delay)
        if fault.lost == "midway":
            return _cut(self._answer(environ, start_response), environ)
        if fault.lost:
            if fault.lost == "after":
                self._answer(environ, lambda *args: lambda data: None)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        if not fault.answers:
            return self._answer(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = [
            ("Content-Type", "application/xml"),
            ("Content-Length", str(len(fault.answer))),
        ]
        start_response(f"{fault.status} Injected", headers)
        return [fault.answer]

    def _answer(self, environ: WSGIEnvironment, start_response: Any) -> list[bytes]:
        with self._one_at_a_time:
            return list(self._moto(environ, start_response))


class _Handler(MotoRequestHandler):
    def send_response(self, code: int, message: str | None = None) -> None:
        # The base class adds a Date here, even to one that is there already.
        self.send_response_only(code, message)

    def log_request(self, *args: Any) -> None:
        """Say nothing: warnings are errors here, and logs are for failures."""

    def log_error(self, *args: Any) -> None:
        """As above: connections are cut on purpose."""


def _dated(start_response: StartResponse, fault: Fault | None) -> Any:
    def start(status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
        told = {name.lower(): value for name, value in headers}
        date = told.get("date") or formatdate(usegmt=True)
        if fault is not None:
            date = fault.dated(date)
        others = [header for header in headers if header[0].lower() != "date"]
        return start_response(status, [*others, ("Date", date)], *args)

    return start


def _cut(answer: list[bytes], environ: WSGIEnvironment) -> Iterator[bytes]:
    body = b"".join(answer)
    yield body[: len(body) // 2]
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


def _seen(environ: WSGIEnvironment) -> Seen:
    return Seen(
        environ["REQUEST_METHOD"],
        environ["PATH_INFO"].encode("latin-1").decode(),
        environ.get("QUERY_STRING", ""),
        {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        },
    )
