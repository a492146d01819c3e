"""Records in ``s3cache_compact`` and ``s3cache_erase``; progress bars."""

from __future__ import annotations

import io
import json
import sys

import pytest
from django.core.management import call_command

from tests.engine import Bucket, Host
from tests.library.models import Author


def run(name: str, *arguments: str, **options: object) -> str:
    out = io.StringIO()
    call_command(
        name, *arguments, stdout=out, no_color=True, database="default", **options
    )
    return out.getvalue()


def test_compact_writes_records(host: Host, bucket: Bucket) -> None:
    ann = Author.objects.create(name="Ann")
    assert run("s3cache_compact").endswith(", 1 records written, 0 removed.\n")
    assert bucket.records() == [f"library_author/rows/{ann.pk}.json"]


def test_its_json_has_the_backlog_of_records(host: Host) -> None:
    run("s3cache_compact")
    Author.objects.create(name="Ann")
    told = json.loads(run("s3cache_compact", "--dry-run", "--json"))
    assert told["default"]["records"]["backlog"] == 1
    told = json.loads(run("s3cache_compact", "--json"))
    assert told["default"]["records"]["backlog"] == 0
    assert told["default"]["records"]["written"] == 1


def test_a_dry_run_writes_none(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    before = bucket.keys()
    run("s3cache_compact", "--dry-run")
    assert bucket.keys() == before


def test_erase_takes_records_of_rows_that_are_gone(host: Host, bucket: Bucket) -> None:
    ann = Author.objects.create(name="secret")
    run("s3cache_compact")
    (key,) = bucket.records()
    kept = bucket.store.get(key).body
    ann.delete()
    run("s3cache_compact")
    bucket.store.put(key, kept)  # as a request that comes late
    run("s3cache_erase")
    assert not any(b"secret" in bucket.store.get(k).body for k in bucket.records())


class Terminal(io.StringIO):
    """Where somebody looks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("place", "verbosity", "shown"),
    [(Terminal, 1, True), (Terminal, 0, False), (io.StringIO, 1, False)],
)
def test_progress_is_shown_where_somebody_looks(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    place: type[io.StringIO],
    verbosity: int,
    shown: bool,
) -> None:
    monkeypatch.setattr(sys, "stderr", seen := place())
    for name in ("s3cache_compact", "s3cache_verify", "s3cache_erase"):
        run(name, verbosity=verbosity)
    assert ("requests" in seen.getvalue()) is shown
