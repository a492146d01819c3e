"""``python -m benchmarks.s3_server``: a small S3, in memory, that counts.

For benchmarks: it answers thousands of requests a second from one process, as
late as it is told to, and says how many of each kind there were. It knows what
clients of objects need (PUT, GET, HEAD, COPY, DELETE, LIST v2, DeleteObjects,
with conditions and ranges), looks at no signature, and forgets all at its end.

Below ``/-/``, where no bucket can be, it is told and asked about itself.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

XMLNS: Final = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
KEPT: Final = ("content-type", "content-encoding", "cache-control")

#: What kinds of request there are, in the words of a bill.
KINDS: Final = ("GET", "HEAD", "PUT", "COPY", "DELETE", "LIST")


@dataclass(slots=True)
class Object:
    """What a key leads to."""

    body: bytes
    etag: str
    modified: float
    headers: dict[str, str]


@dataclass(slots=True)
class Bucket:
    """Objects, and their keys in the order of their UTF-8 bytes."""

    objects: dict[str, Object] = field(default_factory=dict)
    order: list[bytes] = field(default_factory=list)

    def put(self, key: str, made: Object) -> None:
        """Create or replace an object."""
        if key not in self.objects:
            insort(self.order, key.encode())
        self.objects[key] = made

    def remove(self, key: str) -> None:
        """Remove an object, if there is one."""
        if self.objects.pop(key, None) is not None:
            del self.order[bisect_left(self.order, key.encode())]


@dataclass(slots=True)
class Asked:
    """A request; ``headers`` by their names in lower case."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Said:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def error(status: int, code: str, about: str = "") -> Said:
    """The answer to what cannot be done."""
    return Said(
        status,
        f"<Error><Code>{code}</Code><Message>{code}</Message>"
        f"<Key>{escape(about)}</Key></Error>".encode(),
        {"Content-Type": "application/xml"},
    )


class Store:
    """All buckets. One request after the other: each is done at once."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.counts: Counter[str] = Counter()

    def answer(self, asked: Asked) -> Said:
        """Do what is asked."""
        bucket = self.buckets.get(asked.bucket)
        if bucket is None:
            if asked.method == "PUT" and not asked.key:
                self.buckets[asked.bucket] = Bucket()
                return Said()
            return error(404, "NoSuchBucket", asked.bucket)
        if not asked.key:
            return self._about_bucket(bucket, asked)
        found = bucket.objects.get(asked.key)
        if asked.method in ("GET", "HEAD"):
            return self._read(found, asked)
        if refused := _refused(found, asked):
            return refused
        if asked.method == "DELETE":
            bucket.remove(asked.key)
            return Said(204)
        if asked.method == "PUT":
            return self._write(bucket, asked)
        return error(405, "MethodNotAllowed", asked.key)

    def _about_bucket(self, bucket: Bucket, asked: Asked) -> Said:
        if asked.method == "GET" and asked.query.get("list-type") == "2":
            return _page(bucket, asked)
        if asked.method == "POST" and "delete" in asked.query:
            for key in _keys_of(asked.body):
                bucket.remove(key)
            return Said(200, f"<DeleteResult {XMLNS}/>".encode(), _XML)
        if asked.method in ("HEAD", "PUT"):
            return Said()
        return error(501, "NotImplemented", asked.bucket)

    def _read(self, found: Object | None, asked: Asked) -> Said:
        if found is None:
            return error(404, "NoSuchKey", asked.key)
        headers = {
            **found.headers,
            "ETag": found.etag,
            "Last-Modified": formatdate(found.modified, usegmt=True),
        }
        wanted = asked.headers.get("if-match")
        if wanted not in (None, "*", found.etag):
            return error(412, "PreconditionFailed", asked.key)
        # With quotes or without, as S3 takes it.
        if asked.headers.get("if-none-match", "").strip('"') in (
            "*",
            found.etag.strip('"'),
        ):
            return Said(304, b"", headers)
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        if part is None:
            return Said(200, found.body, headers)
        first, size = int(part[1]), len(found.body)
        last = min(int(part[2] or size), size - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return Said(206, found.body[first : last + 1], headers)

    def _write(self, bucket: Bucket, asked: Asked) -> Said:
        source = asked.headers.get("x-amz-copy-source")
        headers = {
            name: value
            for name, value in asked.headers.items()
            if name in KEPT or name.startswith("x-amz-meta-")
        }
        if source is None:
            made = _object(asked.body, headers)
            bucket.put(asked.key, made)
            return Said(200, b"", {"ETag": made.etag})
        there, _, key = unquote(source).lstrip("/").partition("/")
        copied = self.buckets.get(there, Bucket()).objects.get(key)
        if copied is None:
            return error(404, "NoSuchKey", key)
        replaces = asked.headers.get("x-amz-metadata-directive") == "REPLACE"
        made = _object(copied.body, headers if replaces else copied.headers)
        bucket.put(asked.key, made)
        return Said(
            200,
            f"<CopyObjectResult {XMLNS}><ETag>{escape(made.etag)}</ETag>"
            f"<LastModified>{_iso(made.modified)}</LastModified>"
            "</CopyObjectResult>".encode(),
            _XML,
        )


_XML: Final = {"Content-Type": "application/xml"}


def _object(body: bytes, headers: dict[str, str]) -> Object:
    etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return Object(body, f'"{etag}"', time.time(), headers)


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


def _refused(found: Object | None, asked: Asked) -> Said | None:
    """What is said where a condition does not hold."""
    if asked.headers.get("if-none-match") == "*" and found is not None:
        return error(412, "PreconditionFailed", asked.key)
    wanted = asked.headers.get("if-match")
    if wanted is None:
        return None
    if found is None:
        return error(404, "NoSuchKey", asked.key)
    if wanted in ("*", found.etag):
        return None
    return error(412, "PreconditionFailed", asked.key)


def _keys_of(body: bytes) -> Iterator[str]:
    # What a benchmark sends itself, and nobody else.
    for one in ElementTree.fromstring(body).iter():  # noqa: S314
        if one.tag.rpartition("}")[2] == "Key":
            yield one.text or ""


def _page(bucket: Bucket, asked: Asked) -> Said:
    """A page of LIST v2."""
    query = asked.query
    prefix = query.get("prefix", "").encode()
    delimiter = query.get("delimiter", "").encode()
    limit = min(int(query.get("max-keys", "1000")), 1000)
    after = query.get("continuation-token") or query.get("start-after") or ""
    order = bucket.order
    index = max(bisect_left(order, prefix), bisect_right(order, after.encode()))
    lines: list[str] = []
    last = ""
    more = False
    while index < len(order) and order[index].startswith(prefix):
        if len(lines) == limit:
            more = True
            break
        name = order[index]
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut >= 0:
            group = name[: cut + len(delimiter)]
            # All that begin like this, at once.
            last = (group + b"\xf4\x8f\xbf\xbf").decode()
            index = bisect_right(order, last.encode())
            if after.encode().startswith(group):
                continue
            lines.append(
                f"<CommonPrefixes><Prefix>{_name(group, query)}</Prefix>"
                "</CommonPrefixes>"
            )
            continue
        last = name.decode()
        found = bucket.objects[last]
        lines.append(
            f"<Contents><Key>{_name(name, query)}</Key>"
            f"<LastModified>{_iso(found.modified)}</LastModified>"
            f"<ETag>{escape(found.etag)}</ETag><Size>{len(found.body)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
        index += 1
    token = (
        f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
    )
    encoding = "<EncodingType>url</EncodingType>" if "encoding-type" in query else ""
    return Said(
        200,
        f"<ListBucketResult {XMLNS}><Name>{asked.bucket}</Name>"
        f"<Prefix>{_name(prefix, query)}</Prefix>{encoding}"
        f"<KeyCount>{len(lines)}</KeyCount><MaxKeys>{limit}</MaxKeys>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        f"{''.join(lines)}</ListBucketResult>".encode(),
        _XML,
    )


def _name(key: bytes, query: dict[str, str]) -> str:
    if query.get("encoding-type") == "url":
        return quote(key, safe="/")
    return escape(key.decode())


def kind_of(asked: Asked) -> str:
    """What such a request is on a bill."""
    if asked.method == "POST":
        return "DELETE"
    if asked.method == "GET" and not asked.key:
        return "LIST"
    if asked.method == "PUT" and "x-amz-copy-source" in asked.headers:
        return "COPY"
    return asked.method


class Server:
    """The store over HTTP. ``latency`` in seconds is that of each answer."""

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency
        self.store = Store()

    def control(self, asked: Asked) -> Said:
        """Answer what is asked about the server itself."""
        if asked.key == "latency":
            self.latency = float(asked.body)
        elif asked.key != "counts":
            return error(404, "NoSuchKey", asked.key)
        return Said(200, json.dumps(dict(self.store.counts)).encode())


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    _transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._head: Asked | None = None
        self._length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = _head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            self._length = int(self._head.headers.get("content-length", "0"))
            if self._head.headers.get("expect") == "100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self._buffer) < self._length:
            return
        asked, self._head = self._head, None
        asked.body = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        if "aws-chunked" in asked.headers.get("content-encoding", ""):
            asked.body = _unchunked(asked.body)
            del asked.headers["content-encoding"]
        self._take(asked)

    def _take(self, asked: Asked) -> None:
        server = self._server
        if asked.bucket == "-":
            self._write(asked, server.control(asked))
            return
        server.store.counts[kind_of(asked)] += 1
        if not server.latency:
            self._write(asked, server.store.answer(asked))
            return
        # Half of it there, half of it back.
        later = asyncio.get_running_loop().call_later
        later(server.latency / 2, self._answer_late, asked)

    def _answer_late(self, asked: Asked) -> None:
        said = self._server.store.answer(asked)
        later = asyncio.get_running_loop().call_later
        later(self._server.latency / 2, self._write, asked, said)

    def _write(self, asked: Asked, said: Said) -> None:
        if self._transport.is_closing():
            return
        lines = [f"HTTP/1.1 {said.status} {'OK' if said.status < 300 else 'No'}"]
        lines += [f"{name}: {value}" for name, value in said.headers.items()]
        if said.status not in (204, 304):
            lines.append(f"Content-Length: {len(said.body)}")
        lines += [f"Date: {formatdate(usegmt=True)}", "Server: benchmarks", "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        self._transport.write(head if asked.method == "HEAD" else head + said.body)


def _head(data: bytes) -> Asked:
    first, *rest = data.decode("latin-1").split("\r\n")
    method, target, _version = first.split(" ", 2)
    path, _, query = target.partition("?")
    headers = {}
    for line in rest:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    bucket, _, key = unquote(path).removeprefix("/").partition("/")
    asked = {
        name: values[0] for name, values in parse_qs(query, True).items() if values
    }
    return Asked(method, bucket, key, asked, headers, b"")


def _unchunked(body: bytes) -> bytes:
    """What the chunks of ``aws-chunked`` hold; trailers are ignored."""
    whole, start = bytearray(), 0
    while True:
        end = body.index(b"\r\n", start)
        size = int(body[start:end].partition(b";")[0], 16)
        if not size:
            return bytes(whole)
        whole += body[end + 2 : end + 2 + size]
        start = end + 2 + size + 2


async def _serve(port: int, latency: float) -> None:
    server = Server(latency)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: _Connection(server), "127.0.0.1", port, backlog=1024
    )
    stopped = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, stopped.set)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()


class Running:
    """A server in a process of its own, as a benchmark sees it."""

    def __init__(self, address: str) -> None:
        self.address = address

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        asked = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.address}/{path}", body, method=method
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
            return answer.read()

    def create_bucket(self, name: str) -> None:
        """Have such a bucket, for nothing."""
        self._ask("PUT", name)

    def counts(self) -> Counter[str]:
        """The requests so far, by kind."""
        return Counter(json.loads(self._ask("GET", "-/counts")))

    def be_late(self, latency: float) -> None:
        """From now on each answer takes so many seconds."""
        self._ask("PUT", "-/latency", str(latency).encode())


def storage(address: str, bucket: str, location: str) -> dict[str, Any]:
    """An entry of ``STORAGES`` for a place in a server."""
    return {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "endpoint_url": address,
            "region_name": "us-east-1",
            "access_key": "x",
            "secret_key": "x",
            "bucket_name": bucket,
            "location": location,
        },
    }


@contextmanager
def running(latency: float = 0.0) -> Iterator[Running]:
    """Have a server, in a process of its own."""
    process = subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, "-m", "benchmarks.s3_server", "--latency", str(latency)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            if process.stdout is None:
                raise RuntimeError("the server has no output")
            yield Running(process.stdout.readline().strip())
        finally:
            process.terminate()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until somebody interrupts."""
    described = argparse.ArgumentParser(
        prog="python -m benchmarks.s3_server",
        description="Serve S3 from memory, to benchmarks on this machine.",
    )
    add = described.add_argument
    add("--port", type=int, default=0, help="default: any that is free")
    add("--latency", type=float, default=0.0, metavar="SECONDS", help="of each answer")
    options = described.parse_args(arguments)
    asyncio.run(_serve(options.port, options.latency))
    return 0


if __name__ == "__main__":
    sys.exit(main())
