"""``loaddata`` of records gives the rows again, in any database."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connections

from s3cache.records.run import record_now
from tests.engine import Bucket, Host
from tests.library.models import Author, Book, Everything, Loan, Member, Patron, Tag
from tests.missing import missing
from tests.records import postgresql

HOSTILE = [
    "",
    ".",
    "..",
    "../../_head",
    "/",
    "a/b",
    "A",
    "a",
    "~41",
    "%41",
    "Ä",
    "A\u0308",
    "con",
    "rows/1.json",
    "\x00\x01\n",
    "x" * 399,
    "x" * 398 + "y",
    "🐍" * 300,
    "1",
    "-1",
    "'; DROP TABLE",
]

LABELS = {model._meta.db_table: model for model in apps.get_models(True)}


def fill(zero: str) -> None:
    names = [name.replace("\x00", zero) for name in HOSTILE]
    ann = Author.objects.create(name="Ann", born=-(2**31))
    for name in names:
        Tag.objects.create(name=name, note=name[:40])
    book = Book.objects.create(title='"\\\u2028', author=ann, price="999999.99")
    book.tags.add(*Tag.objects.all())
    Book.objects.create(title="Two", author=ann, translator=ann)
    root = Patron.objects.create(name="root", gift=3)
    Member.objects.create(name="leaf", invited_by=root)
    Loan.objects.create(copy=-7, day=date(1, 1, 1), reader="Ä")
    Loan.objects.create(copy=7, day=date(9999, 12, 31))
    Everything.objects.create()
    Everything.objects.create(
        text="\x01\t\r\n ÄÖ🐍",
        blob=bytes(range(256)),
        whole=-(2**62),
        real=math.inf,
        money=Decimal("-123456789012.345"),
        flag=True,
        day=date(2024, 2, 29),
        moment=datetime(2024, 2, 29, 23, 59, 59, 123456, UTC),
        time=time(1, 2, 3, 456789),
        span=timedelta(days=-3, microseconds=1),
        uid=UUID(int=1),
        data={"a": [1, 2.5, None, "Ä", {"b": False}], "": zero},
        address="2001:db8::1",
    )
    Everything.objects.create(
        blob=b"", whole=2**62 - 1, real=0.1 + 0.2, flag=False, data=[], text="None"
    )


def rows(using: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of all models, as Python has them."""
    found = {}
    for model in LABELS.values():
        if model._meta.app_label != "library":
            continue
        names = [f.attname for f in model._meta.local_concrete_fields]
        values = model._base_manager.using(using).values("pk", *names)
        found[model._meta.label] = [
            {k: bytes(v) if isinstance(v, memoryview) else v for k, v in row.items()}
            for row in sorted(values, key=lambda row: repr(row["pk"]))
        ]
    return found


def download(bucket: Bucket, folder: Path) -> list[Path]:
    """All records as files, under the names that they have in the bucket."""
    made = []
    for key in bucket.records():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.store.get(key).body)
        made.append(path)
    return made


@pytest.fixture(scope="session")
def server() -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(postgresql.server())
        except postgresql.Unavailable as error:
            missing(f"PostgreSQL (records are loaded into it): {error}")


@pytest.fixture(params=["sqlite3", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The alias of an empty database of another engine, with tables."""
    settings: dict[str, Any] = {"ENGINE": f"django.db.backends.{request.param}"}
    if request.param == "sqlite3":
        settings["NAME"] = str(tmp_path / "empty.sqlite3")
    else:
        folder = request.getfixturevalue("server")
        settings |= {"NAME": "postgres", "HOST": str(folder), "USER": "test"}
    known = connections.configure_settings({**connections.settings, "empty": settings})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "settings", known)
        other = connections["empty"]
        try:
            with other.schema_editor() as editor:
                for model in apps.get_models():
                    if model._meta.can_migrate(other):
                        editor.create_model(model)
            yield "empty"
        finally:
            if other.vendor == "postgresql":
                with other.cursor() as cursor:
                    cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            other.close()
            del connections["empty"]


def test_the_same_rows(host: Host, bucket: Bucket, empty: str, tmp_path: Path) -> None:
    # PostgreSQL has no text with the character 0 in it.
    fill("" if connections[empty].vendor == "postgresql" else "\x00")
    done = record_now(host.connection.replica)
    assert not done.unreadable
    files = download(bucket, tmp_path / "records")
    call_command("loaddata", *files, database=empty, verbosity=0)
    assert rows(empty) == rows("default")


def test_no_two_rows_share_a_name(host: Host, bucket: Bucket) -> None:
    fill("\x00")
    record_now(host.connection.replica)
    names = [k for k in bucket.records() if k.startswith("library_tag/")]
    assert len({name.casefold() for name in names}) == len(HOSTILE)
    assert all(name.count("/") == 2 and len(name) < 300 for name in names)
