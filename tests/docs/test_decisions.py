"""The figures behind design decisions, where they can be had again."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connection, models

from s3cache.log.keys import entry_key
from s3cache.replica.schema_block import SchemaBlock
from tests.engine import Bucket, Host
from tests.testapp.models import Category

FORK = """\
import os, sqlite3, sys

def connect():
    found = sqlite3.connect(sys.argv[1], isolation_level=None)
    found.execute("PRAGMA journal_mode = WAL")
    return found

def insert(connection, rows):
    for number in range(rows):
        connection.execute("INSERT INTO t VALUES (?)", [number])

parents = connect()
parents.execute("CREATE TABLE t (n)")
there, half = os.pipe()
closed, go_on = os.pipe()
child = os.fork()
if child == 0:
    own = connect()
    insert(own, 100)
    os.write(half, b"x")
    os.read(closed, 1)
    insert(own, 100)
    print(own.execute("SELECT count(*) FROM t").fetchone()[0], flush=True)
    os._exit(0)
os.read(there, 1)
parents.close()
os.write(go_on, b"x")
os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the figure is Linux's")
def test_sqlite_loses_commits_over_a_fork(tmp_path: Path) -> None:
    path = tmp_path / "plain.sqlite3"
    done = subprocess.run(  # noqa: S603  (this Python, with the text above)
        [sys.executable, "-c", FORK, str(path)],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = sqlite3.connect(path)
    [others_see] = found.execute("SELECT count(*) FROM t").fetchone()
    found.close()
    assert (int(done.stdout), others_see) == (200, 100)


def opened(plain: sqlite3.Connection, sql: str) -> set[str]:
    """The tables and indexes that EXPLAIN shows to be opened."""
    names = dict(plain.execute("SELECT rootpage, name FROM sqlite_master"))
    return {
        names[step[3]]
        for step in plain.execute(f"EXPLAIN {sql}")
        if step[1] in ("OpenRead", "OpenWrite", "ReopenIdx")
    }


def test_explain_shows_what_the_optimizer_left_over() -> None:
    plain = sqlite3.connect(":memory:")
    plain.execute("CREATE TABLE a (id INTEGER PRIMARY KEY, b INT, n TEXT)")
    plain.execute("CREATE INDEX a_n ON a (n)")
    plain.execute("CREATE TABLE b (id INTEGER PRIMARY KEY)")
    assert opened(plain, "DELETE FROM a") == set()
    assert opened(plain, "SELECT count(*) FROM a") == {"a_n"}
    assert opened(plain, "SELECT a.id FROM a LEFT JOIN b ON b.id = a.b") == {"a"}
    plain.close()


@pytest.mark.parametrize("bucket", ["directory"], indirect=True)
@pytest.mark.parametrize(
    ("as_rows", "least", "most"), [(False, 0, 1_000), (True, 80_000, 140_000)]
)
def test_a_remade_table_is_a_small_entry(
    host: Host,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    as_rows: bool,
    least: int,
    most: int,
) -> None:
    if as_rows:
        monkeypatch.setattr(SchemaBlock, "_is_pure", lambda *args: False)
    Category.objects.bulk_create(
        [Category(name=f"category {number}") for number in range(10_000)]
    )
    before = Category._meta.get_field("name")
    after = models.CharField(max_length=40, null=True)
    after.set_attributes_from_name("name")
    after.model = Category
    with connection.schema_editor() as editor:
        editor.alter_field(Category, before, after)
    entry = bucket.store.get(entry_key(host.position)).body
    assert least < len(entry) < most
