"""
What each operation costs, counted at the store.

These are the budgets of the documentation: the numbers are exact, so that a
request too many fails a test and not somebody's bill.
"""

from __future__ import annotations

import re
import secrets
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, F, Sum
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import DjangoAssertNumQueries

from tests.db.hosts import each_on, outcomes
from tests.engine import Bucket, Host, MakeHost
from tests.library.models import Author, Book, Loan, Place, Tag

#: Beside one GET per entry. ``_head`` is read before the LIST, for where it
#: begins, and after it, for no trim may have passed that place meanwhile.
NEW_REPLICA = ["GET head", "LIST log", "GET head"]


# Writes


def test_an_insert_is_one_put(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen:
        Author.objects.create(name="Ann")
    assert seen == ["PUT log"]


def test_an_update_is_one_put(host: Host, bucket: Bucket) -> None:
    ann = Author.objects.create(name="Ann")
    ann.born = 1950
    with bucket.requests() as seen:
        ann.save()
    assert seen == ["PUT log"]


def test_a_delete_is_one_put(host: Host, bucket: Bucket) -> None:
    place = Place.objects.create(shelf="x", number=1)
    with bucket.requests() as seen:
        place.delete()
    assert seen == ["PUT log"]


def test_a_delete_that_cascades_is_one_put(host: Host, bucket: Bucket) -> None:
    book = Book.objects.create(title="One", author=Author.objects.create(name="Ann"))
    book.tags.add(Tag.objects.create(name="new"))
    with bucket.requests() as seen:
        book.delete()
    assert seen == ["PUT log"]
    assert not Book.tags.through.objects.exists()


def test_a_delete_that_finds_no_dependent_rows_asks_if_that_is_so(
    host: Host, bucket: Bucket
) -> None:
    tag = Tag.objects.create(name="old")
    with bucket.requests() as seen:
        tag.delete()
    assert seen == ["GET log", "PUT log"]


@pytest.mark.parametrize("rows", [1000, 3000])
def test_bulk_create_is_one_put_whatever_the_number(
    host: Host, bucket: Bucket, rows: int
) -> None:
    with bucket.requests() as seen:
        Tag.objects.bulk_create([Tag(name=f"tag {n}") for n in range(rows)])
    assert seen == ["PUT log"]
    assert Tag.objects.count() == rows


def test_the_first_block_that_needs_ids_reserves_them_with_one_put_more(
    host: Host, bucket: Bucket
) -> None:
    with bucket.requests() as seen, transaction.atomic():
        Author.objects.create(name="Ann")
    assert seen == ["PUT log", "PUT log"]
    with bucket.requests() as seen, transaction.atomic():
        Author.objects.create(name="Bob")
        Author.objects.create(name="Cid")
    assert seen == ["PUT log"]


def test_an_update_of_a_thousand_rows_is_one_put(host: Host, bucket: Bucket) -> None:
    Tag.objects.bulk_create([Tag(name=f"tag {n}") for n in range(1000)])
    with bucket.requests() as seen:
        assert Tag.objects.update(note="seen") == 1000
    assert seen == ["PUT log"]


def test_bulk_update_is_one_put(host: Host, bucket: Bucket) -> None:
    tags = Tag.objects.bulk_create([Tag(name=f"tag {n}") for n in range(1000)])
    for tag in tags:
        tag.note = tag.name
    with bucket.requests() as seen:
        Tag.objects.bulk_update(tags, ["note"], batch_size=100)
    assert seen == ["PUT log"]


def test_a_commit_above_4_mb_is_two_puts_and_reads_back_the_large_one(
    host: Host, bucket: Bucket
) -> None:
    with bucket.requests() as seen:
        Tag.objects.create(name="large", note=secrets.token_hex(5 * 1024 * 1024))
    assert seen == ["PUT blobs", "GET blobs", "PUT log"]


def test_a_block_is_one_put_whatever_it_writes(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen, transaction.atomic():
        Tag.objects.create(name="a")
        Tag.objects.create(name="b")
        Tag.objects.filter(name="a").update(note="x")
        Loan.objects.create(copy=1, day="2026-01-01")
        Loan.objects.filter(copy=1).delete()
    assert seen == ["PUT log"]


def test_a_block_that_only_reads_asks_for_nothing(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen, transaction.atomic():
        list(Tag.objects.all())
    assert seen == []


def test_a_block_that_is_rolled_back_asks_for_nothing(
    host: Host, bucket: Bucket
) -> None:
    with bucket.requests() as seen, transaction.atomic():
        Tag.objects.create(name="a")
        transaction.set_rollback(True)
    assert seen == []


def test_a_write_that_changes_nothing_asks_once(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen:
        assert Tag.objects.filter(name="nobody").update(note="x") == 0
    assert seen == ["GET log"]


def test_a_write_that_is_refused_asks_once(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann")
    with bucket.requests() as seen, pytest.raises(IntegrityError):
        Author.objects.create(name="Ann")
    assert seen == ["GET log"]


def test_a_block_asks_once_however_often_it_finds_nothing(
    host: Host, bucket: Bucket
) -> None:
    with bucket.requests() as seen, transaction.atomic():
        for name in "abc":
            assert Tag.objects.filter(name=name).update(note="x") == 0
        Tag.objects.create(name="d")
    assert seen == ["GET log", "PUT log"]


def test_a_write_that_was_overtaken_reads_the_winner_and_puts_again(
    hosts: MakeHost, bucket: Bucket
) -> None:
    a, b = hosts(), hosts()
    b.catch_up()
    with a:
        Tag.objects.create(name="first")
    with b, bucket.requests() as seen:
        Tag.objects.create(name="second")
    assert seen == ["PUT log", "GET log", "PUT log"]


def test_many_to_many_changes_are_one_put(host: Host, bucket: Bucket) -> None:
    book = Book.objects.create(title="One", author=Author.objects.create(name="Ann"))
    tags = [Tag.objects.create(name=name) for name in "abc"]
    with transaction.atomic():  # has ids reserved
        book.tags.add(tags[0])
    with bucket.requests() as seen:
        book.tags.set(tags)
    assert seen == ["PUT log"]


def test_what_a_write_costs_does_not_depend_on_the_table(
    host: Host, bucket: Bucket
) -> None:
    Tag.objects.bulk_create([Tag(name=f"tag {n}") for n in range(20_000)])
    with bucket.requests() as seen:
        Tag.objects.filter(name="tag 7").update(note="lucky")
    assert seen == ["PUT log"]


# Reads


def test_no_warm_read_asks_for_anything(host: Host, bucket: Bucket) -> None:
    ann = Author.objects.create(name="Ann")
    Book.objects.bulk_create([Book(title=f"{n}", author=ann) for n in range(2500)])
    with bucket.requests() as seen:
        assert Author.objects.get(pk=ann.pk).name == "Ann"
        assert Book.objects.count() == 2500
        assert len(Book.objects.order_by("title")[:100]) == 100
        assert Book.objects.filter(author__name="Ann", title__endswith="7").exists()
        assert Author.objects.annotate(n=Count("books")).get().n == 2500
        assert Book.objects.aggregate(Sum("price")) == {"price__sum": Decimal(0)}
        assert len(Book.objects.select_related("author")[2400:]) == 100
        assert len(Author.objects.prefetch_related("books")) == 1
        assert len(Book.objects.in_bulk([1, 2])) == 2
        assert len(Book.objects.raw("SELECT * FROM library_book LIMIT 3")) == 3
    assert seen == []


def test_a_read_after_max_age_asks_once_for_all_tables(
    hosts: MakeHost, bucket: Bucket
) -> None:
    with hosts(max_age=60) as host:
        assert not Author.objects.exists()
        host.pass_time(61)
        with bucket.requests() as seen:
            assert not Author.objects.exists()
            assert not Book.objects.exists()
            assert not Tag.objects.exists()
        assert seen == ["GET log"]


@pytest.mark.parametrize("foreign", [1, 2])
def test_a_read_after_max_age_gets_each_entry_of_others(
    hosts: MakeHost, bucket: Bucket, foreign: int
) -> None:
    a, b = hosts(), hosts(max_age=60)
    b.catch_up()
    with a:
        for number in range(foreign):
            Author.objects.create(name=f"author {number}")
    b.pass_time(61)
    with b, bucket.requests() as seen:
        assert Author.objects.count() == foreign
    assert seen == ["GET log"] * (foreign + 1)


def test_a_host_that_is_far_behind_lists_the_log(
    hosts: MakeHost, bucket: Bucket
) -> None:
    a, b = hosts(), hosts(max_age=60)
    b.catch_up()
    with a:
        for number in range(20):
            Tag.objects.create(name=f"tag {number}")
    b.pass_time(61)
    with b, bucket.requests() as seen:
        assert Tag.objects.count() == 20
    # The first three one by one: mostly there are no more than that.
    assert seen[:4] == ["GET log"] * 3 + ["LIST log"]
    assert sorted(seen) == ["GET log"] * 20 + ["LIST log"]


def test_own_writes_prove_that_the_replica_is_fresh(
    hosts: MakeHost, bucket: Bucket
) -> None:
    with hosts(max_age=60) as host:
        Author.objects.create(name="Ann")
        host.pass_time(50)
        with bucket.requests() as seen:
            Author.objects.create(name="Bob")
            assert Author.objects.count() == 2
        host.pass_time(50)
        with bucket.requests() as more:
            assert Author.objects.count() == 2
        assert (seen, more) == (["PUT log"], [])


def test_max_age_0_asks_on_every_read(hosts: MakeHost, bucket: Bucket) -> None:
    with hosts(max_age=0):
        assert not Tag.objects.exists()
        with bucket.requests() as seen:
            assert not Tag.objects.exists()
            assert not Tag.objects.exists()
    assert seen == ["GET log", "GET log"]


def test_the_first_read_of_a_host_lists_the_log_and_gets_each_entry(
    hosts: MakeHost, bucket: Bucket
) -> None:
    with hosts():
        for number in range(5):
            Tag.objects.create(name=f"tag {number}")
    entries = len(bucket.entries())
    with hosts(), bucket.requests() as seen:
        assert Tag.objects.count() == 5
    assert sorted(seen) == sorted([*NEW_REPLICA, *["GET log"] * entries])


def test_a_host_whose_replica_is_there_asks_for_what_is_new(
    hosts: MakeHost, bucket: Bucket
) -> None:
    a, b = hosts(max_age=0), hosts()
    with a:
        Tag.objects.create(name="one")
    with b:
        Tag.objects.create(name="two")
    a.restart()
    with a, bucket.requests() as seen:
        assert Tag.objects.count() == 2
    assert seen == ["GET log", "GET log"]


def test_the_first_use_of_an_empty_location_makes_the_database(
    hosts: MakeHost, bucket: Bucket
) -> None:
    bucket.store.delete_many(bucket.keys())
    with hosts() as host, bucket.requests() as seen:
        assert host.position == 0
    # What is left after the probe has tidied up behind itself.
    assert bucket.keys() == ["_head"]
    assert seen[-1].endswith(("log", "head"))
    assert "PUT head" in seen


def test_the_first_write_of_a_host_costs_what_its_first_read_does_and_a_put(
    hosts: MakeHost, bucket: Bucket
) -> None:
    with hosts():
        Author.objects.create(name="Ann")
    entries = len(bucket.entries())
    with hosts(), bucket.requests() as seen:
        Author.objects.create(name="Bob")
    assert sorted(seen) == sorted([*NEW_REPLICA, *["GET log"] * entries, "PUT log"])


at_the_server = pytest.mark.parametrize("bucket", ["s3"], indirect=True)


@at_the_server
def test_twenty_cold_reads_at_once_cost_what_one_does(
    hosts: MakeHost, bucket: Bucket
) -> None:
    with hosts():
        Tag.objects.create(name="a")
    entries = len(bucket.entries())
    cold = hosts()
    with bucket.requests() as seen:
        counts = outcomes(each_on(cold, Tag.objects.count, 20))
    assert counts == [1] * 20
    assert sorted(seen) == sorted([*NEW_REPLICA, *["GET log"] * entries])


@at_the_server
def test_twenty_reads_after_max_age_ask_once(hosts: MakeHost, bucket: Bucket) -> None:
    host = hosts(max_age=60)
    host.catch_up()
    host.pass_time(61)
    with bucket.requests() as seen:
        counts = outcomes(each_on(host, Tag.objects.count, 20))
    assert counts == [0] * 20
    assert seen == ["GET log"]


@at_the_server
def test_fifty_writes_at_once_share_a_few_puts(hosts: MakeHost, bucket: Bucket) -> None:
    with hosts() as host:
        Author.objects.create(name="Ann", born=0)

        def increment() -> None:
            Author.objects.update(born=F("born") + 1)

        with bucket.requests() as seen:
            assert outcomes(each_on(host, increment, 50)) == [None] * 50
        assert Author.objects.get().born == 50
    assert set(seen) == {"PUT log"}
    assert len(seen) <= 5


# Where developers look


@pytest.mark.usefixtures("host")
def test_a_query_names_the_requests_that_it_took() -> None:
    with CaptureQueriesContext(connection) as captured:
        Tag.objects.create(name="a")
    (query,) = captured.captured_queries
    assert query["sql"].startswith('INSERT INTO "library_tag"')
    assert re.fullmatch(r"PUT _log/\d{12} 200 \(0\.\d+ s\)", query["store"])


@pytest.mark.usefixtures("host")
def test_assert_num_queries_counts_statements(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    with django_assert_num_queries(2):
        Tag.objects.create(name="a")
        assert Tag.objects.count() == 1


@pytest.mark.usefixtures("host")
def test_the_logger_of_queries_has_a_record_of_each_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level("DEBUG", "django.db.backends"),
        CaptureQueriesContext(connection),
    ):
        Tag.objects.create(name="a")
    said = [record.getMessage() for record in caplog.records]
    assert any("PUT _log/" in one for one in said)
    assert any("INSERT INTO" in one for one in said)


def test_an_f_expression_in_an_update_is_one_put(host: Host, bucket: Bucket) -> None:
    Author.objects.create(name="Ann", born=1949)
    with bucket.requests() as seen:
        Author.objects.update(born=F("born") + 1)
    assert seen == ["PUT log"]
    assert Author.objects.get().born == 1950


def test_get_or_create_is_one_put_or_none(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as made:
        Tag.objects.get_or_create(name="a")
    with bucket.requests() as found:
        Tag.objects.get_or_create(name="a")
    assert (made, found) == (["PUT log"], [])


def test_a_composite_key_costs_the_same(host: Host, bucket: Bucket) -> None:
    with bucket.requests() as seen:
        Loan.objects.create(copy=1, day="2026-01-01")
    assert seen == ["PUT log"]
