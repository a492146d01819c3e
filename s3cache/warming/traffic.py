"""What was read at this hour on earlier days, to be warm before it is again.

A process that records notes which results it had to compute, by the hour of
the day. Results that are read often are computed often, too: each time that
they were thrown away, or changed. What is noted are queries, pickled: they lie
beside the replica, in files that only its user can read, are signed with
``SECRET_KEY``, and are not read unless the signature is right.

State is bounded: for each hour so many queries, those that were computed on
most days and most often.
"""

from __future__ import annotations

import base64
import datetime as dt
import fcntl
import hashlib
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import django
from django.conf import settings
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, models
from django.db.models.sql import AggregateQuery, Query
from django.db.models.sql.constants import MULTI, SINGLE
from django.utils import timezone

from s3cache import conf
from s3cache.hints import set_hints
from s3cache.results import statements
from s3cache.results.reading import Reading, bare
from s3cache.warming.steps import Step

if TYPE_CHECKING:
    from s3cache.db.base import DatabaseWrapper

__all__ = ["MOST", "Recorded", "Traffic", "record", "steps_of_traffic"]

logger = logging.getLogger("s3cache.warming")

#: Queries that are kept for each hour of the day.
MOST: Final = 128

#: Days for which a query is remembered.
_DAYS: Final = 14

#: Bytes of a pickled query; larger ones are not kept.
_LARGEST: Final = 8192

#: New queries of one second; more of them are not looked at.
_PER_SECOND: Final = 20

#: Seconds between two times that a process writes what it has noted.
_SAVE_EVERY: Final = 60.0

_SALT: Final = "s3cache.warming.traffic"


@dataclass(frozen=True)
class Recorded:
    """A read of which only the query is known; see `s3cache.facade.Read`."""

    query: Query
    alias: str
    is_one: bool = True

    @property
    def connection(self) -> DatabaseWrapper:
        """The database that is read."""
        return cast("DatabaseWrapper", connections[self.alias])

    def asking(self, **hints: Any) -> Recorded:
        """The same, with hints for the result cache."""
        query = self.query.clone()
        set_hints(query, **hints)
        return replace(self, query=query)

    def perform(self) -> Any:
        """Make the read; its rows are of no use to anybody."""
        form = SINGLE if isinstance(self.query, AggregateQuery) else MULTI
        return self.query.get_compiler(self.alias).execute_sql(form)


@dataclass(slots=True)
class _Noted:
    """How often a query was computed, on which days, and the query."""

    data: bytes
    count: int = 0
    days: set[int] = field(default_factory=set)

    def rank(self) -> tuple[int, int]:
        return len(self.days), self.count


class Traffic:
    """The queries of one database, by hour, in files named after `path`."""

    def __init__(
        self, path: Path, now: Callable[[], dt.datetime] | None = None
    ) -> None:
        self._path = path
        self._now = now or _now
        self._lock = threading.Lock()
        self._unsaved: dict[int, dict[str, _Noted]] = {}
        self._saved_at = time.monotonic()
        self._second = (0.0, 0)

    def note(self, query: Query, sql: str, params: Any) -> None:
        """A result was computed, and stored."""
        now = self._now()
        name = _name(sql, params)
        if not self._lock.acquire(blocking=False):
            return  # one of very many: it is only a sample
        try:
            known = self._unsaved.setdefault(now.hour, {})
            noted = known.get(name)
            if noted is None:
                if len(known) >= MOST or not self._has_time():
                    return
                data = _pickled(query)
                if data is None:
                    return
                noted = known[name] = _Noted(data)
            noted.count += 1
            noted.days.add(now.toordinal())
            is_due = time.monotonic() - self._saved_at >= _SAVE_EVERY
        finally:
            self._lock.release()
        if is_due:
            self.save()

    def save(self) -> None:
        """
        Add what was noted to the files; whatever fails is only logged.

        A reader does it, who waits for nobody: what another process is just
        changing is left for the next time.
        """
        with self._lock:
            unsaved, self._unsaved = self._unsaved, {}
            self._saved_at = time.monotonic()
        for hour, noted in unsaved.items():
            try:
                with self._held(hour) as path:
                    _write(path, _merged(_read(path), noted, self._now()))
            except BlockingIOError:
                with self._lock:
                    newer = self._unsaved.get(hour, {})
                    self._unsaved[hour] = _merged(noted, newer, self._now())
            except (OSError, ImproperlyConfigured) as error:
                logger.warning("The traffic was not saved: %s", error)

    def queries(self, hour: int | None = None) -> list[Query]:
        """
        What was computed at that hour on earlier days, the usual first.

        None: at this hour.
        """
        now = self._now()
        noted = _read(self._file(now.hour if hour is None else hour))
        today = now.toordinal()
        usual = [one for one in noted.values() if one.days - {today}]
        usual.sort(key=_Noted.rank, reverse=True)
        return [query for one in usual if (query := _unpickled(one.data)) is not None]

    def _file(self, hour: int) -> Path:
        return self._path.with_name(f"{self._path.name}-{hour:02}")

    @contextmanager
    def _held(self, hour: int) -> Iterator[Path]:
        """The file of an hour; `BlockingIOError` if another process has it."""
        path = self._file(hour)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path
        finally:
            os.close(descriptor)

    def _has_time(self) -> bool:
        """Whether one more new query may be looked at within this second."""
        second, number = self._second
        now = time.monotonic()
        if now - second >= 1:
            second, number = now, 0
        self._second = second, number + 1
        return number < _PER_SECOND


def _merged(
    known: dict[str, _Noted], new: dict[str, _Noted], now: dt.datetime
) -> dict[str, _Noted]:
    """Both, without what is too old, and no more than are kept."""
    for name, noted in new.items():
        found = known.setdefault(name, noted)
        if found is not noted:
            found.count += noted.count
            found.days |= noted.days
            found.data = noted.data
    oldest = now.toordinal() - _DAYS
    for noted in known.values():
        noted.days = {day for day in noted.days if day > oldest}
    usual = [item for item in known.items() if item[1].days]
    usual.sort(key=lambda item: item[1].rank(), reverse=True)
    return dict(usual[:MOST])


def _write(path: Path, noted: dict[str, _Noted]) -> None:
    plain = {
        name: [base64.b64encode(one.data).decode(), one.count, sorted(one.days)]
        for name, one in noted.items()
    }
    fresh = path.with_name(f"{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(signing.dumps([django.VERSION[:2], plain], salt=_SALT))
    fresh.replace(path)


def _read(path: Path) -> dict[str, _Noted]:
    """What a file says; nothing, if it is not ours or of another Django."""
    try:
        version, plain = signing.loads(
            path.read_text(), salt=_SALT, fallback_keys=settings.SECRET_KEY_FALLBACKS
        )
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, signing.BadSignature, ValueError) as error:
        logger.warning("%s is not what was written: %s", path, error)
        return {}
    if tuple(version) != django.VERSION[:2]:
        return {}  # pickles of queries are of one version
    return {
        name: _Noted(base64.b64decode(data), count, set(days))
        for name, (data, count, days) in plain.items()
    }


def _pickled(query: Query) -> bytes | None:
    """A query without what is of this process; None: it cannot be kept."""
    try:
        data = pickle.dumps(bare(query), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        # A value of the project's own, perhaps, which pickles as it likes.
        logger.debug("A query cannot be recorded: %s", error)
        return None
    return data if len(data) <= _LARGEST else None


def _unpickled(data: bytes) -> Query | None:
    """The query; None: its models, or their fields, are not there any more."""
    try:
        query = pickle.loads(data)  # noqa: S301  (signed, see above)
    except Exception as error:
        # Classes may be gone, or be something else.
        logger.info("A recorded query is of no use any more: %s", error)
        return None
    return query if isinstance(query, Query) else None


def _name(sql: str, params: Any) -> str:
    text = repr((sql, params)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=12).hexdigest()


def _now() -> dt.datetime:
    """The project's time: a visitor may have another time zone."""
    if not settings.USE_TZ:
        return dt.datetime.now()
    return timezone.localtime(timezone=timezone.get_default_timezone())


_traffic: dict[str, Traffic] = {}


def traffic_of(alias: str) -> Traffic:
    """The traffic of a database, in this process."""
    path = Path(str(connections.settings[alias]["NAME"]))
    known = _traffic.get(str(path))
    if known is None:
        made = Traffic(path.with_name(f"{path.name}-traffic"))
        known = _traffic.setdefault(str(path), made)
    return known


def record() -> None:
    """Note from now on what this process computes."""
    if _note not in statements.computed:
        statements.computed.append(_note)


def _note(reading: Reading, sql: str, params: Any) -> None:
    if isinstance(getattr(reading, "query", None), Query) and _is_of_model(reading):
        traffic_of(reading.connection.alias).note(reading.query, sql, params)


def _is_of_model(reading: Reading) -> bool:
    model: type[models.Model] | None = reading.model
    return model is not None


def steps_of_traffic(
    number: int, aliases: Iterable[str] | None = None, hour: int | None = None
) -> Iterator[Step]:
    """At most `number` of the queries that are usual at an hour, or now."""
    for alias in conf.bucket_aliases() if aliases is None else aliases:
        for query in traffic_of(alias).queries(hour)[:number]:
            yield Step(Recorded(query, alias), "traffic")


os.register_at_fork(after_in_child=_traffic.clear)
