"""``manage.py s3cache_compact`` and ``s3cache_erase``."""

from __future__ import annotations

import errno
import io
import json
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from django.core.management import CommandError, call_command

from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log.head import decode_head, encode_head
from s3cache.log.keys import HEAD
from s3cache.management import commands, keeping
from s3cache.management.commands import s3cache_erase, s3cache_flush
from s3cache.replica.file import ReplicaFile
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Member


def run(name: str, *arguments: str, **options: object) -> str:
    out = io.StringIO()
    call_command(name, *arguments, stdout=out, no_color=True, **options)
    return out.getvalue()


def test_compact_says_what_it_did(host: Host, hosts: MakeHost) -> None:
    Author.objects.create(name="Ann")
    n = host.position
    assert run("s3cache_compact", database="default") == (
        f"default: packed to entry {n} of {n} (1 packs), log trimmed to 0, "
        f"1 packs written, 0 objects deleted.\n"
    )
    assert hosts("new").dump() == host.dump()


def test_compact_catches_up_first(host: Host, hosts: MakeHost) -> None:
    with hosts("other"):
        Author.objects.create(name="Ann")
    with host:
        run("s3cache_compact", database="default")
    assert hosts("new").dump() == host.dump()


def test_it_is_silent_at_verbosity_0(host: Host) -> None:
    assert run("s3cache_compact", database="default", verbosity=0) == ""


def test_a_dry_run_says_what_is_due(host: Host, bucket: Bucket) -> None:
    n = host.position
    before = bucket.keys()
    assert run("s3cache_compact", "--dry-run", database="default") == (
        f"default: packed to entry 0 of {n} (0 packs), log trimmed to 0, "
        f"1 packs would be written, 0 objects would be deleted.\n"
    )
    assert bucket.keys() == before


def test_json_has_the_backlog(host: Host) -> None:
    run("s3cache_compact", database="default")
    Author.objects.create(name="Ann")
    told = json.loads(run("s3cache_compact", "--dry-run", "--json", database="default"))
    assert told["default"]["backlog"] == 1
    assert told["default"]["catalog"] == host.position - 1


def test_a_database_that_is_in_no_bucket(host: Host) -> None:
    with pytest.raises(CommandError, match="'nothing' is no database that lives in"):
        run("s3cache_compact", database="nothing")


def test_a_full_disk_is_an_error_in_a_line(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(keeping, "keep_now", fail)
    with pytest.raises(CommandError, match="^default: database or disk is full$"):
        run("s3cache_compact", database="default")


COMMANDS = sorted(path.stem for path in Path(commands.__path__[0]).glob("s3cache_*"))
NEEDED = {"s3cache_restore": ["--location", "elsewhere"]}


@pytest.mark.parametrize("name", COMMANDS)
def test_where_no_replica_can_be_opened_every_command_says_so_in_a_line(
    host: Host, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    host.restart()
    monkeypatch.setattr(ReplicaFile, "open", fail)
    try:
        run(name, *NEEDED.get(name, []))
    except CommandError as error:
        assert "disk is full" in str(error)


def test_no_space_for_a_file_is_said_in_a_line(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/replica")

    monkeypatch.setattr(s3cache_flush.Command, "handle", fail)
    with pytest.raises(CommandError, match="^No space left on device: /replica$"):
        run("s3cache_flush")


def test_everything_writes_all_packs_anew(host: Host) -> None:
    run("s3cache_compact", database="default")
    assert "0 packs written" in run("s3cache_compact", database="default")
    again = run("s3cache_compact", "--everything", database="default")
    assert "1 packs written" in again


def test_another_keeper_is_left_alone(host: Host, bucket: Bucket) -> None:
    answer = bucket.store.get(HEAD)
    taken = msgspec.structs.replace(decode_head(answer.body), keeper="somebody")
    bucket.store.put(HEAD, encode_head(taken), if_match=answer.etag)
    assert run("s3cache_compact", database="default") == (
        "default: another keeper is at work; nothing was done.\n"
    )
    with pytest.raises(CommandError, match="run it again"):
        run("s3cache_erase", database="default")


def test_erase_leaves_nothing_of_a_deleted_row(
    host: Host, hosts: MakeHost, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    Member.objects.create(name="secret" * 6)
    run("s3cache_compact", database="default")
    Member.objects.all().delete()
    old = set(bucket.keys())
    assert run("s3cache_erase", database="default") == (
        f"default: 2 objects deleted. {host.position} entries of the log are less "
        f"than two hours old and stay; run it again then.\n"
    )
    # Two hours later.
    erase = replace(s3cache_erase.ERASE, retain=0.0)
    monkeypatch.setattr(s3cache_erase, "ERASE", erase)
    assert run("s3cache_erase", database="default").endswith(
        "nothing but the newest state is left.\n"
    )
    left = set(bucket.keys())
    assert bucket.entries() == []
    assert left & old == {HEAD, *(k for k in old if k.startswith("_probe"))}
    assert hosts("new").dump() == host.dump()


def test_load_makes_a_replica_and_loads_all_of_it(host: Host, hosts: MakeHost) -> None:
    Author.objects.bulk_create(Author(name=f"{n:03}") for n in range(200))
    keep_now(host.connection.replica, KeeperOptions(pack_after=1, target=4096))
    cold = hosts("cold", load_at_once=0)
    with cold:
        told = json.loads(run("s3cache_load", "--json"))["default"]
        assert told["number"] == host.position
        assert told["packs"] > 1
        assert run("s3cache_load") == (
            f"default: the replica has all rows at entry {host.position}; "
            f"0 packs were loaded.\n"
        )
    assert cold.dump() == host.dump()


def test_load_shows_how_far_it_is(host: Host, hosts: MakeHost) -> None:
    Author.objects.bulk_create(Author(name=f"{n:03}") for n in range(200))
    keep_now(host.connection.replica, KeeperOptions(pack_after=1, target=4096))
    cold = hosts("cold", load_at_once=0)
    left: list[int] = []
    cold.catch_up()
    cold.connection.replica.on_load = left.append
    cold.connection.replica.load()
    assert left == list(range(len(left)))[::-1]
    assert len(left) > 1
