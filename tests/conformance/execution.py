"""Runs apps in child processes, two engines side by side."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import django

from tests import uncovered
from tests.conformance import catalogue, sdist
from tests.conformance.engines import BY_NAME
from tests.conformance.job import PART_SIZE, VARIABLE, Job
from tests.conformance.outcomes import AppRun, Outcome

ROOT = Path(__file__).resolve().parents[2]

#: How many tests of one app may end its process before the rest is given up.
RESTARTS = 5

#: Files of this package that decide how tests end on the reference.
DECISIVE = ("runner.py", "modes.py", "settings.py", "job.py", "engines/sqlite.py")


@dataclass(frozen=True)
class Options:
    """What to run, and how."""

    mode: int
    engine: str
    seed: int
    parallel: int
    use_cache: bool = True
    app_timeout: float = 3 * 3600.0
    test_timeout: float = 120.0


@dataclass(frozen=True)
class Pair:
    """One app on both engines."""

    reference: AppRun
    engine: AppRun


def run(apps: Sequence[str], options: Options) -> Iterator[Pair]:
    """Run each app on plain SQLite and on the engine.

    Yields in the order of ``apps``, each as soon as it and those before it
    are done. The reference's part comes from the cache where it can.
    """
    with ThreadPoolExecutor(options.parallel) as pool, _Children() as children:
        pending = {
            app: (
                pool.submit(_reference, app, options, children),
                pool.submit(_fresh, app, options.engine, options, children),
            )
            for app in sorted(apps, key=lambda app: app not in catalogue.SLOW)
        }
        try:
            for app in apps:
                reference, engine = pending[app]
                yield Pair(reference.result(), engine.result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class Stopped(Exception):
    """The run ended before this app did."""


class _Children:
    """The processes that run; none of them outlives the ``with`` block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def __enter__(self) -> _Children:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._closed = True
            for child in self._running:
                _kill(child)

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], job: Job
    ) -> tuple[str, str]:
        """How the command ended, and what it wrote."""
        log = Path(job.folder) / "output.txt"
        with log.open("w") as output:
            with self._lock:
                if self._closed:
                    raise Stopped
                child = subprocess.Popen(  # noqa: S603 - our own words
                    command,
                    cwd=sdist.tests_folder(),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._running.add(child)
            try:
                ended = f"exit code {child.wait(job.timeout)}"
            except subprocess.TimeoutExpired:
                ended = "hung"
            with self._lock:
                # Its own children too: some tests start processes.
                _kill(child)
                self._running.discard(child)
                stopped = self._closed
            child.wait()
        if stopped:
            raise Stopped
        return ended, log.read_text(errors="replace")


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _reference(app: str, options: Options, children: _Children) -> AppRun:
    kept = (
        sdist.CACHE / f"reference-{_fingerprint()}" / f"{app}-mode{options.mode}.json"
    )
    if options.use_cache and kept.exists():
        run = AppRun.from_json(kept.read_text())
        run.cached = True
        return run
    run = _fresh(app, "sqlite", options, children)
    if run.count("hung", "crashed"):
        return run  # nothing to rely on the next time
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}")
    part.write_text(run.to_json())
    part.replace(kept)
    return run


@functools.cache
def _fingerprint() -> str:
    """Changes with whatever may change how a test ends on plain SQLite."""
    digest = hashlib.sha256()
    for name in DECISIVE:
        digest.update((Path(__file__).parent / name).read_bytes())
    # Django's tests skip what they miss a library for.
    for name in sorted(
        f"{found.name}=={found.version}" for found in importlib.metadata.distributions()
    ):
        digest.update(name.encode())
    return "-".join(
        (
            f"django{django.get_version()}",
            f"python{platform.python_version()}",
            f"sqlite{sqlite3.sqlite_version}",
            digest.hexdigest()[:8],
        )
    )


def _fresh(app: str, engine: str, options: Options, children: _Children) -> AppRun:
    """Run an app, again without each test that ends its process."""
    run = AppRun(app)
    without = list(catalogue.TIMED)
    began = time.monotonic()
    part = 0
    while part < run.parts and len(without) - len(catalogue.TIMED) <= RESTARTS:
        with _temporary_folder() as folder:
            job = Job(
                app=app,
                engine=BY_NAME.get(engine, engine),
                mode=options.mode,
                seed=options.seed,
                folder=str(folder),
                without=tuple(without),
                part=part,
                part_size=PART_SIZE if options.mode == 3 else 0,
                timeout=options.app_timeout,
                test_timeout=options.test_timeout,
            )
            ended, log = _child(job, children)
            lines = job.events.read_text().splitlines() if job.events.exists() else []
        events = [json.loads(line) for line in lines]
        died_in = run.add(events)
        if events and events[-1]["kind"] == "finished":
            part += 1
            continue
        hung = ended == "hung" or "Timeout (" in log
        test = died_in or f"{app}, outside its tests"
        run.outcomes[test] = Outcome("hung" if hung else "crashed", ended, log[-6000:])
        if not died_in:
            break
        without.append(died_in)
    run.seconds = time.monotonic() - began
    return run


def _child(job: Job, children: _Children) -> tuple[str, str]:
    """Run Django's ``runtests.py``; how it ended, and its output."""
    command = [sys.executable, "runtests.py", "--noinput", "--parallel=1"]
    command += ["--settings=tests.conformance.settings", *job.app.split()]
    environment = {
        **uncovered.environment(),
        VARIABLE: str(job.save()),
        "PYTHONPATH": os.pathsep.join(
            filter(None, (os.environ.get("PYTHONPATH"), str(ROOT)))
        ),
        # Sets are iterated in the same order on both engines.
        "PYTHONHASHSEED": "0",
        "TMPDIR": job.folder,
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    return children.run(command, environment, job)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """In memory where the system has such a place."""
    memory = Path("/dev/shm")  # noqa: S108
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(
        prefix="conformance-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
