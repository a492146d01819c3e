"""Hosts at the same time: threads, processes, and stores that fail.

Threads take their hosts by ``on``; ``processes`` makes real processes, each
with a host of its own; ``FaultyStore`` loses and refuses what it is told to.
"""

from __future__ import annotations

import faulthandler
import itertools
import multiprocessing
import os
import pickle
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from django.conf import settings as django_settings
from django.db import connections

from s3cache.db.base import DatabaseWrapper
from s3cache.replica.connections import connect
from s3cache.stores import DirectoryStore, Store, registry
from s3cache.stores.base import Answer, Kind, Request, observe
from tests.engine import NEVER, Bucket, Host
from tests.faults.rules import ALWAYS, Rule, Rules

T = TypeVar("T")

#: The modules of s3cache that open connections to a replica, or to a copy.
OPENING = ("replica.replica", "replica.file", "keeper.performer")

#: Seconds after which whoever has not come back hangs.
HANGS_AFTER = 60.0


# Connections


@contextmanager
def all_closed_after(path: Path) -> Iterator[None]:
    """Whatever is opened inside, for the replica at ``path``, is closed then.

    Also what is opened for a file beside it; something has to be.
    """
    made: list[Noted] = []

    class Noted(sqlite3.Connection):
        is_closed = False

        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            made.append(self)

        def close(self) -> None:
            super().close()
            self.is_closed = True

    def connect_noted(of: Path, **how: Any) -> sqlite3.Connection:
        if of.name.startswith(path.name):
            how["factory"] = Noted
        return connect(of, **how)  # else another test's, in the background

    with pytest.MonkeyPatch.context() as patch:
        for module in OPENING:
            patch.setattr(f"s3cache.{module}.connect", connect_noted)
        yield
    assert made
    assert all(one.is_closed for one in made)


# Threads


@contextmanager
def on(host: Host) -> Iterator[DatabaseWrapper]:
    """Have this thread use ``host``, by a connection of its own."""
    before = connections["default"]
    wrapper = DatabaseWrapper(host.settings, "default")
    connections["default"] = wrapper
    try:
        yield wrapper
    finally:
        wrapper.close()
        connections["default"] = before


def each_on(host: Host, job: Callable[[], T], times: int) -> list[Callable[[], T]]:
    """``job`` so many times, each for a thread of its own on ``host``."""

    def run() -> T:
        with on(host):
            return job()

    return [run] * times


def outcomes(jobs: Sequence[Callable[[], T]]) -> list[T | BaseException]:
    """What each of the jobs came to, run in threads that start together."""
    found: list[Any] = [None] * len(jobs)
    ready = threading.Barrier(len(jobs))

    def run(index: int) -> None:
        try:
            ready.wait(HANGS_AFTER)
            found[index] = jobs[index]()
        except BaseException as error:
            found[index] = error
        finally:
            for connection in connections.all(initialized_only=True):
                connection.close()

    threads = [
        threading.Thread(target=run, args=[index], daemon=True)
        for index in range(len(jobs))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGS_AFTER)
        if thread.is_alive():
            faulthandler.dump_traceback(2, all_threads=True)
            pytest.fail(f"a thread still runs after {HANGS_AFTER:g} s")
    return found


def together(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """The results of the jobs, none of which may fail."""
    results: list[T] = []
    for outcome in outcomes(jobs):
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


class Turns:
    """Lets two threads run in an order that the test decides.

    ``wait("a")`` returns once somebody has said ``say("a")``.
    """

    def __init__(self) -> None:
        self._said: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def _event(self, name: str) -> threading.Event:
        with self._lock:
            return self._said.setdefault(name, threading.Event())

    def say(self, name: str) -> None:
        """Let whoever waits for ``name`` go on."""
        self._event(name).set()

    def wait(self, name: str) -> None:
        """Wait until somebody says ``name``."""
        if not self._event(name).wait(HANGS_AFTER):
            raise TimeoutError(f"nobody said {name!r}")


# A store that fails

#: What becomes of a request, given what sends it on.
Action = Callable[[Callable[[], Answer]], Answer]


def lost_before(send: Callable[[], Answer]) -> Answer:
    """The request does not arrive."""
    return Answer(0, message="lost before")


def lost_after(send: Callable[[], Answer]) -> Answer:
    """The request has its effect, and its answer does not arrive."""
    send()
    return Answer(0, message="lost after")


def says(status: int, *, after: bool = False) -> Action:
    """The store says ``status``, with ``after`` once the effect is there."""

    def action(send: Callable[[], Answer]) -> Answer:
        if after:
            send()
        return Answer(status, message="injected")

    return action


def first(do: Callable[[], object]) -> Action:
    """Something else happens, then the request arrives."""

    def action(send: Callable[[], Answer]) -> Answer:
        do()
        return send()

    return action


def then(do: Callable[[], object]) -> Action:
    """The request arrives, then something else happens, then its answer."""

    def action(send: Callable[[], Answer]) -> Answer:
        answer = send()
        do()
        return answer

    return action


class FaultyStore(Store):
    """Another store, in front of which requests and answers get lost."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner.name)
        self.inner = inner
        self._rules: Rules[Action] = Rules()

    def on(
        self, kind: Kind | str, part: str, action: Action, *, times: int = ALWAYS
    ) -> None:
        """Treat requests whose key contains ``part`` by ``action``.

        So many times; rules are used up in the order in which they came.
        """
        self._rules.add(Rule(action, kind, part, times))

    def heal(self) -> None:
        """Be the other store again."""
        self._rules.replace([])

    def _do(self, kind: str, key: str, send: Callable[[], Answer]) -> Answer:
        action = self._rules.strike(kind, key)
        return send() if action is None else action(send)

    def _get(self, key: str) -> Answer:
        return self._do("GET", key, lambda: self.inner.get(key))

    def _put(
        self,
        key: str,
        body: bytes,
        if_none_match: bool,
        if_match: str,
        content_type: str,
        metadata: Mapping[str, str],
    ) -> Answer:
        return self._do(
            "PUT",
            key,
            lambda: self.inner.put(
                key,
                body,
                if_none_match=if_none_match,
                if_match=if_match,
                content_type=content_type,
                metadata=metadata,
            ),
        )

    def _delete(self, key: str, if_match: str) -> Answer:
        return self._do(
            "DELETE", key, lambda: self.inner.delete(key, if_match=if_match)
        )

    def _list(self, prefix: str, start_after: str, limit: int) -> Answer:
        return self._do(
            "LIST",
            prefix,
            lambda: self.inner.list(prefix, start_after=start_after, limit=limit),
        )

    def _delete_many(self, keys: Sequence[str]) -> Answer:
        return self._do("DELETE", "", lambda: self.inner.delete_many(keys))


@pytest.fixture
def faulty(bucket: Bucket) -> FaultyStore:
    """The store under the STORAGES alias "faulty"; ``bucket`` stays sound."""
    store = FaultyStore(bucket.store)
    registry._stores["faulty"] = store
    return store


# Processes

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.db.preloaded"])


@dataclass(frozen=True)
class Setup:
    """How a process makes its host."""

    storage: Mapping[str, Any]
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Host:
        """The host, in use in the thread that calls this."""
        django_settings.STORAGES = {
            **django_settings.STORAGES,
            "bucket": dict(self.storage),
        }
        DirectoryStore.durable = False
        host = Host(self.path, dict(self.options))
        host.__enter__()
        return host


class Process:
    """A process with a host, which calls the functions that it is told to.

    They are functions of modules, and use the database ``default``.
    """

    def __init__(self, setup: Setup) -> None:
        self._pipe, other = _context.Pipe()
        self._process = _context.Process(
            target=_serve, args=(other, setup), daemon=True
        )
        self._process.start()
        other.close()

    @property
    def pid(self) -> int:
        """The number by which signals are sent to it."""
        if self._process.pid is None:
            raise RuntimeError("the process was not started")
        return self._process.pid

    def start(self, function: Callable[..., object], *args: object) -> None:
        """Have it call a function; ``result`` waits for what comes of it."""
        self._pipe.send((function, args))

    def result(self) -> Any:
        """What the function returned; raises what it raised."""
        succeeded, outcome = self.receive()
        if not succeeded:
            raise outcome
        return outcome

    def receive(self) -> Any:
        """The next thing that it sends; ``EOFError`` when it is dead."""
        if not self._pipe.poll(HANGS_AFTER):
            raise TimeoutError("the process does not answer")
        return self._pipe.recv()

    def has_said(self) -> bool:
        """Whether ``receive`` would return, or raise, at once."""
        return self._pipe.poll()

    def call(self, function: Callable[..., Any], *args: object) -> Any:
        """Have it call a function, and wait for its result."""
        self.start(function, *args)
        return self.result()

    def stop_listening(self) -> None:
        """Tell a function of it that takes orders that there are no more."""
        self._pipe.send(None)

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.join(HANGS_AFTER)

    def stop(self) -> None:
        """Let it end, or end it; once more does nothing."""
        if self._pipe.closed:
            return
        if self._process.is_alive():
            try:
                self._pipe.send(None)
            except BrokenPipeError:
                pass
            self._process.join(5)
            if self._process.is_alive():
                self.kill()
        self._pipe.close()
        self._process.close()


#: In a process: where to send what is not the result of a function.
pipe: Connection | None = None


def _serve(connection: Connection, setup: Setup) -> None:
    global pipe
    pipe = connection
    faulthandler.enable(2)
    setup.make()
    while (order := connection.recv()) is not None:
        function, args = order
        try:
            answer = True, function(*args)
        except BaseException as error:
            answer = False, _picklable(error)
        connection.send(answer)


def _picklable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    except Exception:
        return RuntimeError(repr(error))
    return error


def send(message: object) -> None:
    """Tell the test something, from within a process."""
    if pipe is None:
        raise RuntimeError("this is not a process of a test")
    pipe.send(message)


class MakeProcess(Protocol):
    """Make a process; its name is that of its replica's file."""

    def __call__(self, name: str = ..., /, **options: Any) -> Process: ...


@pytest.fixture
def processes(bucket: Bucket, tmp_path: Path) -> Iterator[MakeProcess]:
    """Makes processes with hosts on ``bucket``, as ``hosts`` makes hosts."""
    made: list[Process] = []

    def make(name: str = "", /, **options: Any) -> Process:
        path = tmp_path / f"{name or f'process-{len(made) + 1}'}.sqlite3"
        storage = django_settings.STORAGES["bucket"]
        made.append(Process(Setup(storage, path, {"max_age": NEVER, **options})))
        return made[-1]

    yield make
    for process in made:
        process.stop()


@contextmanager
def killed_after(requests: int, seconds: float = 0.0) -> Iterator[None]:
    """Be killed so long after so many requests have been answered."""
    made = itertools.count(1)

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def tell(request: Request) -> None:
        if next(made) == requests:
            threading.Timer(seconds, kill).start() if seconds else kill()

    with observe(tell):
        yield


def in_child(function: Callable[[], T]) -> T:
    """Call a function in a child of this process, by ``os.fork``."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            outcome: Any = True, function()
        except BaseException as error:
            outcome = False, _picklable(error)
        with os.fdopen(writing, "wb") as file:
            pickle.dump(outcome, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read()
    os.waitpid(child, 0)
    succeeded, outcome = pickle.loads(said)  # noqa: S301 (our own)
    if not succeeded:
        raise outcome
    result: T = outcome
    return result
