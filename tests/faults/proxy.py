"""An HTTP proxy before a store, on which bad days can be tried.

    python -m tests.faults.proxy http://localhost:9000 \\
        --fault '{"lost": "after", "chance": 0.1, "kind": "PUT"}'

Whoever is to have a bad day gets its address as endpoint. Requests pass as
they are, the Host header included, so that signatures stay right where the
server takes the name that it was called by.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from email.utils import formatdate
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.faults.rules import ALWAYS, Fault, Lost, Rule, Rules

#: Headers that are about a connection, not about what is sent through it.
_OF_CONNECTIONS = {"connection", "keep-alive", "expect", "transfer-encoding"}


class Proxy:
    """A proxy on a random port of the loopback interface, in threads.

    ``behind`` is the address of what stands behind it. Rules are about
    methods, and parts of unquoted paths (/bucket/key).
    """

    def __init__(self, behind: str, *, port: int = 0, seed: object = 0) -> None:
        address = urlsplit(behind)
        if address.scheme != "http" or not address.hostname:
            raise ValueError(f"{behind!r} is not like http://localhost:9000")
        self.behind = address.hostname, address.port or 80
        self.faults: Rules[Fault] = Rules(seed)
        self._server = _Server(self, port)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, daemon=True, name="proxy"
        )

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @contextmanager
    def fault(
        self,
        kind: str = "",
        part: str = "",
        *,
        times: int = ALWAYS,
        chance: float = 1.0,
        **fault: Any,
    ) -> Iterator[None]:
        """What happens meanwhile to such requests; ``Fault`` says what may."""
        with self.faults.during(Rule(Fault(**fault), kind, part, times, chance)):
            yield


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients keep their connections open

    def __init__(self, proxy: Proxy, port: int) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, *args: Any) -> None:
        """Say nothing: connections are cut on purpose."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, and one to what stands behind."""

    protocol_version = "HTTP/1.1"
    server: _Server
    _onward: HTTPConnection | None = None

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
        elif self.parse_request():
            self._pass_on()
            self.wfile.flush()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(self.path.partition("?")[0])
        fault = self.server.proxy.faults.strike(self.command, path) or Fault()
        time.sleep(fault.delay)
        if fault.lost == "before":
            self._cut(fault)
            return
        if fault.answers:
            self._say(fault, fault.status, fault.answer, [("Date", "")])
            return
        try:
            status, headers, answer = self._ask(body)
        except (OSError, HTTPException):
            self._cut(fault)  # what is behind is not there: nor are we
            return
        if fault.lost == "after":
            self._cut(fault)
            return
        self._say(fault, status, answer, headers)
        if fault.lost == "midway":
            self._cut(fault)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body that what stands behind answers."""
        if self._onward is None:
            self._onward = HTTPConnection(*self.server.proxy.behind, timeout=60)
        onward = self._onward
        onward.putrequest(
            self.command, self.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in self.headers.items():
            if name.lower() not in _OF_CONNECTIONS:
                onward.putheader(name, value)
        onward.endheaders(body)
        answer = onward.getresponse()
        return answer.status, answer.getheaders(), answer.read()

    def _say(
        self, fault: Fault, status: int, body: bytes, headers: list[tuple[str, str]]
    ) -> None:
        self.send_response_only(status, None if status < 400 else "Error")
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value  # of a HEAD, what a GET would send
            elif name.lower() == "date":
                date = value or formatdate(usegmt=True)
                self.send_header("Date", fault.dated(date))
            elif name.lower() not in _OF_CONNECTIONS:
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault.lost == "midway" else body)

    def _cut(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.reset:
            # Nothing lingers: what would be a FIN is a RST.
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            # socketserver would shut it down politely before it closes it.
            self.wfile.flush()
            self.rfile.close()
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        if self._onward is not None:
            self._onward.close()
        try:
            super().finish()
        except OSError:
            pass  # it is cut

    def log_message(self, *args: Any) -> None:
        """Say nothing: what matters is in ``faults.struck``."""


def rule_of(text: str) -> Rule[Fault]:
    """The rule that JSON describes: fields of ``Rule`` and of ``Fault``.

    Raises ``ValueError`` for what is not known.
    """
    given = json.loads(text)
    if not isinstance(given, dict):
        raise ValueError(f"{text!r} is not an object")
    of_fault = {field.name for field in fields(Fault)} - {"body"}
    of_rule = {field.name for field in fields(Rule)} - {"what"}
    if unknown := given.keys() - of_fault - of_rule:
        known = ", ".join(sorted(of_fault | of_rule))
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known are {known}")
    fault = Fault(**{name: given[name] for name in given.keys() & of_fault})
    if fault.lost not in Lost.__args__:  # type: ignore[attr-defined]
        raise ValueError(f"lost is one of {', '.join(filter(None, Lost.__args__))}")  # type: ignore[attr-defined]
    return Rule(fault, **{name: given[name] for name in given.keys() & of_rule})


def main(arguments: Sequence[str] | None = None) -> int:
    """Stand before a store until somebody interrupts."""
    described = argparse.ArgumentParser(
        prog="python -m tests.faults.proxy",
        description="Stand before a store, and treat requests badly.",
    )
    add = described.add_argument
    add("behind", metavar="URL", help="of the store, like http://localhost:9000")
    add("--port", type=int, default=0, help="default: any that is free")
    add("--seed", default="0", help="of the chances")
    add(
        "--fault",
        action="append",
        type=rule_of,
        default=[],
        metavar="JSON",
        help="kind (a method), part (of a path), times, chance, delay, lost, reset, "
        "status, code, date, skew; may be given again, the first that strikes counts",
    )
    options = described.parse_args(arguments)
    with Proxy(options.behind, port=options.port, seed=options.seed) as proxy:
        proxy.faults.replace(options.fault)
        sys.stdout.write(f"{proxy.address} stands before {options.behind}\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        for what, times in proxy.faults.struck.most_common():
            sys.stdout.write(f"{times:8} {what}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
