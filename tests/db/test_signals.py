"""``rows_changed``: on every host, for every way to write."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management.color import no_style
from django.db import connection, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from s3cache.signals import rows_changed
from tests.db.hosts import on
from tests.engine import Host, MakeHost
from tests.library.models import Author, Book, Loan, Patron, Tag

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)

Change = tuple[Any, tuple[Any, ...] | None, bool]


@pytest.fixture
def changes() -> Iterator[list[Change]]:
    """What was sent: sender, pks, and whether this host wrote it."""
    sent: list[Change] = []

    def receive(*, sender: Any, pks: Any, local: bool, **kwargs: Any) -> None:
        sent.append((sender, pks and tuple(sorted(pks)), local))

    rows_changed.connect(receive)
    yield sent
    rows_changed.disconnect(receive)


def test_all_arguments(host: Host) -> None:
    received: list[dict[str, Any]] = []

    def receive(**kwargs: Any) -> None:
        del kwargs["signal"]
        received.append(kwargs)

    rows_changed.connect(receive)
    try:
        Tag.objects.create(name="a")
    finally:
        rows_changed.disconnect(receive)
    assert received == [
        {
            "sender": Tag,
            "using": "default",
            "table": "library_tag",
            "pks": ("a",),
            "position": host.position,
            "local": True,
        }
    ]


def test_save_and_delete(host: Host, changes: list[Change]) -> None:
    ann = Author.objects.create(name="Ann")
    ann.save()
    pk = ann.pk
    Author.objects.filter(pk=pk).delete()
    assert changes == [(Author, (pk,), True)] * 3


def test_bulk_operations(host: Host, changes: list[Change]) -> None:
    tags = Tag.objects.bulk_create([Tag(name=name) for name in "abc"])
    Tag.objects.filter(name__gt="a").update(note="x")
    tags[0].note = "y"
    Tag.objects.bulk_update(tags[:1], ["note"])
    Tag.objects.filter(name="c").delete()
    assert changes == [
        (Tag, ("a", "b", "c"), True),
        (Tag, ("b", "c"), True),
        (Tag, ("a",), True),
        (Tag, ("c",), True),
    ]


def test_raw_sql(host: Host, changes: list[Change]) -> None:
    host.sql("INSERT INTO library_tag VALUES ('a', '')")
    host.sql("UPDATE library_tag SET name = 'b'")
    assert changes == [(Tag, ("a",), True), (Tag, ("a", "b"), True)]


def test_many_to_many_changes_come_from_the_through_model(
    host: Host, changes: list[Change]
) -> None:
    book = Book.objects.create(title="x", author=Author.objects.create(name="Ann"))
    tag = Tag.objects.create(name="a")
    changes.clear()
    book.tags.add(tag)
    assert [sender for sender, *_ in changes] == [Book.tags.through]


def test_a_composite_key_is_a_tuple(host: Host, changes: list[Change]) -> None:
    Loan.objects.create(copy=1, day="2026-01-01")
    assert changes == [(Loan, ((1, "2026-01-01"),), True)]


def test_a_row_in_two_tables_is_two_changes(host: Host, changes: list[Change]) -> None:
    patron = Patron.objects.create(name="Ann")
    assert {(sender, pks) for sender, pks, _ in changes} == {
        (Patron, (patron.pk,)),
        (Patron.__base__, (patron.pk,)),
    }


def test_a_table_without_a_model_has_no_sender(
    host: Host, changes: list[Change]
) -> None:
    host.sql("CREATE TABLE loose (a INTEGER PRIMARY KEY)")
    host.sql("INSERT INTO loose VALUES (5)")
    assert changes == [(None, (5,), True)]


def test_a_block_is_told_once_per_table_after_its_commit(
    host: Host, changes: list[Change]
) -> None:
    with transaction.atomic():
        Tag.objects.create(name="a")
        Tag.objects.create(name="b")
        Tag.objects.filter(name="a").update(note="x")
        assert changes == []
    assert changes == [(Tag, ("a", "b"), True)]


def test_receivers_see_the_new_rows(host: Host) -> None:
    counts: list[int] = []

    def receive(**kwargs: Any) -> None:
        assert not connection.in_atomic_block
        counts.append(Tag.objects.count())

    rows_changed.connect(receive, sender=Tag)
    try:
        Tag.objects.create(name="a")
    finally:
        rows_changed.disconnect(receive, sender=Tag)
    assert counts == [1]


def test_receivers_may_write(host: Host) -> None:
    def receive(**kwargs: Any) -> None:
        Author.objects.get_or_create(name="made by a receiver")

    rows_changed.connect(receive, sender=Tag)
    try:
        Tag.objects.create(name="a")
    finally:
        rows_changed.disconnect(receive, sender=Tag)
    assert Author.objects.count() == 1


def test_nothing_is_sent_for_what_changes_nothing(
    host: Host, changes: list[Change]
) -> None:
    Tag.objects.filter(name="nobody").update(note="x")
    with transaction.atomic():
        Tag.objects.create(name="a")
        transaction.set_rollback(True)
    list(Tag.objects.all())
    assert changes == []


def test_what_another_host_wrote_is_sent_when_it_arrives(
    hosts: MakeHost, changes: list[Change]
) -> None:
    a, b = hosts(), hosts()
    for host in (a, b):
        host.catch_up()
    with a:
        Tag.objects.create(name="a")
        Author.objects.create(pk=3, name="Ann")
    changes.clear()
    b.catch_up()
    assert changes == [(Tag, ("a",), False), (Author, (3,), False)]
    b.catch_up()
    assert len(changes) == 2


def test_a_read_that_catches_up_sends_too(
    hosts: MakeHost, changes: list[Change]
) -> None:
    a, b = hosts(), hosts(max_age=0)
    b.catch_up()
    with a:
        Tag.objects.create(name="a")
    changes.clear()
    with b:
        assert Author.objects.count() == 0
    assert changes == [(Tag, ("a",), False)]


def test_each_change_is_sent_once_in_a_process(
    host: Host, changes: list[Change]
) -> None:
    with on(host):
        Tag.objects.create(name="a")
    assert Tag.objects.count() == 1
    with on(host):
        assert Tag.objects.count() == 1
    assert changes == [(Tag, ("a",), True)]


def test_too_many_pks_are_none(host: Host, changes: list[Change]) -> None:
    Tag.objects.bulk_create([Tag(name=str(n)) for n in range(6000)])
    assert changes == [(Tag, None, True)]


def test_flush_is_sent(host: Host, changes: list[Change]) -> None:
    Tag.objects.create(name="a")
    changes.clear()
    connection.ops.execute_sql_flush(
        connection.ops.sql_flush(no_style(), ["library_tag"])
    )
    assert changes == [(Tag, ("a",), True)]


def test_an_error_in_a_receiver_is_logged_and_goes_no_further(
    host: Host, changes: list[Change], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**kwargs: Any) -> None:
        raise ValueError("a receiver's own fault")

    rows_changed.connect(fail)
    try:
        with caplog.at_level(logging.ERROR):
            Tag.objects.create(name="a")
    finally:
        rows_changed.disconnect(fail)
    assert "a receiver's own fault" in caplog.text
    assert changes == [(Tag, ("a",), True)]
    assert Tag.objects.count() == 1


def test_djangos_own_signals_are_sent_as_ever(host: Host) -> None:
    sent: list[str] = []

    def saved(*, instance: Any, created: bool, **kwargs: Any) -> None:
        sent.append(f"saved {instance} {created}")

    def deleted(*, instance: Any, **kwargs: Any) -> None:
        sent.append(f"deleted {instance}")

    def related(*, action: str, pk_set: set[Any], **kwargs: Any) -> None:
        sent.append(f"{action} {sorted(pk_set)}")

    post_save.connect(saved, sender=Tag)
    post_delete.connect(deleted, sender=Tag)
    m2m_changed.connect(related, sender=Book.tags.through)
    try:
        book = Book.objects.create(title="x", author=Author.objects.create(name="Ann"))
        tag = Tag.objects.create(name="a")
        tag.save()
        book.tags.add(tag)
        tag.delete()
    finally:
        post_save.disconnect(saved, sender=Tag)
        post_delete.disconnect(deleted, sender=Tag)
        m2m_changed.disconnect(related, sender=Book.tags.through)
    assert sent == [
        "saved a True",
        "saved a False",
        "pre_add ['a']",
        "post_add ['a']",
        "deleted a",
    ]
