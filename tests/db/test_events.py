"""What a replica counts of its commits."""

from __future__ import annotations

import pytest
from django.db import transaction

from s3cache.exceptions import TransactionConflict
from tests.engine import Host, MakeHost
from tests.library.models import Author

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


def events(host: Host) -> dict[str, float]:
    """What happened, but for tables that Django keeps."""
    found = host.connection.replica.events.read()
    return {
        f"{name} {table}".strip(): number
        for (name, table), number in found.items()
        if table in ("", "library_author")
    }


def since(host: Host, before: dict[str, float]) -> dict[str, float]:
    return {
        name: number - before.get(name, 0)
        for name, number in events(host).items()
        if number != before.get(name, 0)
    }


def test_commits_of_own_and_of_others(host: Host, hosts: MakeHost) -> None:
    other = hosts()
    with other:
        list(Author.objects.all())
        other_before = events(other)
    before = events(host)
    with host:
        Author.objects.create(name="Ada")
        with transaction.atomic():
            Author.objects.create(name="Grace")
            Author.objects.create(name="Hedy")
        assert since(host, before) == {
            "commits": 3,  # one reserved ids for the block
            "transactions": 3,
            "changed library_author": 2,
        }
    with other:
        other.catch_up()
        assert since(other, other_before) == {"moved library_author": 2}


def test_a_commit_that_comes_second_is_tried_again(host: Host, hosts: MakeHost) -> None:
    other = hosts()
    with other:
        list(Author.objects.all())
    with host:
        Author.objects.create(name="Ada")
    with other:
        before = events(other)
        Author.objects.create(name="Grace")
        assert since(other, before) == {
            "retries": 1,
            "commits": 1,
            "transactions": 1,
            "moved library_author": 1,
            "changed library_author": 1,
        }


def test_a_conflict_is_counted_once(host: Host, hosts: MakeHost) -> None:
    with host:
        author = Author.objects.create(name="Ada")
    other = hosts()
    with other:
        before = events(other)
        with pytest.raises(TransactionConflict), transaction.atomic():
            mine = Author.objects.get(pk=author.pk)
            mine.name += "!"
            with host:
                Author.objects.update(name="Grace")
            mine.save()
        assert since(other, before).get("conflicts") == 1
