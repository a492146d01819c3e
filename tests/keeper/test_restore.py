"""``manage.py s3cache_restore``: an earlier state as a new database."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log.head import decode_head
from s3cache.log.keys import HEAD
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author

Dump = dict[str, list[Any]]


@pytest.fixture
def location(bucket: Bucket, settings: Any, tmp_path: Path) -> str:
    """A place for the new database, like the one of the old."""
    old: str = settings.STORAGES["bucket"]["OPTIONS"]["location"]
    return f"{old}-restored"


def run(location: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("s3cache_restore", location=location, stdout=out, **options)
    return out.getvalue()


def restored(settings: Any, hosts: MakeHost, location: str) -> Host:
    """A new host of the new database."""
    options = {**settings.STORAGES["bucket"]["OPTIONS"], "location": location}
    storage = {**settings.STORAGES["bucket"], "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "restored": storage}
    return hosts("restored", storage="restored")


def history(host: Host) -> list[tuple[int, Dump]]:
    """Positions and what was there, over a round of the keeper."""
    found = []
    for n in range(3):
        Author.objects.create(name=f"author {n}")
        found.append((host.position, host.dump()))
    keep_now(host.connection.replica, KeeperOptions(pack_after=1))
    for n in range(3, 6):
        Author.objects.create(name=f"author {n}")
        found.append((host.position, host.dump()))
    return found


@pytest.mark.parametrize("which", range(6))
def test_any_state_that_the_log_has(
    host: Host, hosts: MakeHost, settings: Any, location: str, which: int
) -> None:
    number, state = history(host)[which]
    before = host.dump()
    assert f"was after entry {number}.\n" in run(location, to=number)
    new = restored(settings, hosts, location)
    assert new.dump() == state
    with new:
        Author.objects.create(name="somebody else")
    assert new.position == number + 1
    host.catch_up()
    assert host.dump() == before


def test_the_newest_state_of_a_log_that_is_trimmed(
    host: Host, hosts: MakeHost, settings: Any, bucket: Bucket, location: str
) -> None:
    history(host)
    options = KeeperOptions(pack_after=1, retain=0.0, grace=0.0)
    keep_now(host.connection.replica, options)
    run(location)
    new = restored(settings, hosts, location)
    assert new.dump() == host.dump()
    old, made = (decode_head(h.store.get(HEAD).body) for h in (bucket, new.connection))
    assert old.database != made.database
    with pytest.raises(CommandError, match="The log is trimmed to "):
        run(f"{location}-again", to=old.trimmed - 1)


def test_a_location_that_is_in_use(host: Host, location: str) -> None:
    Author.objects.create(name="Ann")
    run(location)
    with pytest.raises(CommandError, match="holds a database already"):
        run(location)


def test_the_location_of_the_database_itself(host: Host, location: str) -> None:
    with pytest.raises(CommandError, match="where the database is already"):
        run(location.removesuffix("-restored"))


def test_a_state_that_never_was(host: Host, location: str) -> None:
    with pytest.raises(CommandError, match="There is no entry 4711"):
        run(location, to=4711)


def test_a_host_that_is_moved_there_takes_the_new_database(
    host: Host, hosts: MakeHost, settings: Any, location: str
) -> None:
    (number, state), *_ = history(host)
    run(location, to=number)
    new = restored(settings, hosts, location)
    path = new.connection.settings_dict["NAME"]
    host.close()
    Path(host.connection.settings_dict["NAME"]).rename(path)
    assert new.dump() == state
