"""
The whole of Django over a bucket: what projects use beside the ORM's basics.

One host writes through forms, the admin, commands, async code and sessions,
and another one reads what it wrote.
"""

from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django import forms
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth import authenticate
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.core.paginator import Paginator
from django.db import connection, transaction
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    F,
    Max,
    OuterRef,
    Prefetch,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.functions import Lower, Rank, TruncYear
from django.forms import inlineformset_factory
from django.test import Client
from django.urls import reverse

from tests.engine import Host, MakeHost
from tests.library.models import Author, Book, Everything, Member, Patron, Place, Tag

pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


@pytest.fixture
def other(hosts: MakeHost) -> Host:
    """A second host, which asks the store before each read."""
    made = hosts(max_age=0)
    made.catch_up()
    return made


@pytest.fixture
def library(host: Host) -> dict[str, Author]:
    """Two authors with three books."""
    ann, bob = (
        Author.objects.create(name=name, born=born)
        for name, born in (("Ann", 1900), ("Bob", 1950))
    )
    tags = [Tag.objects.create(name=name) for name in ("art", "bees")]
    for title, author, stock, price in (
        ("Alpha", ann, 3, "10.00"),
        ("Beta", ann, 0, "20.50"),
        ("Gamma", bob, 7, "5.25"),
    ):
        book = Book.objects.create(
            title=title, author=author, stock=stock, price=Decimal(price)
        )
        book.tags.set(tags[: stock % 3])
    return {"Ann": ann, "Bob": bob}


# Queries


def test_joins_aggregates_and_annotations(
    library: dict[str, Author], other: Host
) -> None:
    with other:
        assert Book.objects.filter(author__born__lt=1920, tags=None).count() == 2
        assert Book.objects.aggregate(Sum("stock"), Max("price"), Avg("stock")) == {
            "stock__sum": 10,
            "price__max": Decimal("20.50"),
            "stock__avg": pytest.approx(10 / 3),
        }
        assert list(
            Author.objects.annotate(
                books_count=Count("books"), worth=Sum(F("books__price"))
            )
            .filter(books_count__gt=1)
            .values_list("name", "books_count", "worth")
        ) == [("Ann", 2, Decimal("30.50"))]


def test_subqueries_windows_and_conditions(
    library: dict[str, Author], other: Host
) -> None:
    newest = Book.objects.filter(author=OuterRef("pk")).order_by("-title")
    with other:
        assert list(
            Author.objects.annotate(last=Subquery(newest.values("title")[:1]))
            .filter(Exists(newest.filter(stock__gt=0)))
            .values_list("name", "last")
            .order_by("name")
        ) == [("Ann", "Beta"), ("Bob", "Gamma")]
        assert list(
            Book.objects.annotate(
                place=Window(Rank(), order_by=F("price").desc()),
                kind=Case(When(stock=0, then=Value("gone")), default=Value("here")),
            )
            .values_list("title", "place", "kind")
            .order_by("title")
        ) == [("Alpha", 2, "here"), ("Beta", 1, "gone"), ("Gamma", 3, "here")]


def test_unions_slices_and_pages(library: dict[str, Author], other: Host) -> None:
    with other:
        cheap = Book.objects.filter(price__lt=6).values_list("title")
        dear = Book.objects.filter(price__gt=15).values_list("title")
        assert sorted(cheap.union(dear)) == [("Beta",), ("Gamma",)]
        pages = Paginator(Book.objects.order_by("title"), 2)
        assert (pages.count, pages.num_pages) == (3, 2)
        assert [book.title for book in pages.page(2)] == ["Gamma"]


def test_prefetches_and_deferred_fields(
    library: dict[str, Author], other: Host
) -> None:
    with other:
        authors = Author.objects.prefetch_related(
            Prefetch("books", Book.objects.order_by("-title")), "books__tags"
        ).order_by("name")
        assert [
            (author.name, [book.title for book in author.books.all()])
            for author in authors
        ] == [("Ann", ["Beta", "Alpha"]), ("Bob", ["Gamma"])]
        book = Book.objects.defer("price").select_related("author").get(title="Alpha")
        assert (book.price, book.author.name) == (Decimal("10.00"), "Ann")


def test_functions_json_and_iterators(host: Host, other: Host) -> None:
    Everything.objects.bulk_create(
        Everything(text=f"N{n}", data={"n": n, "tags": ["x"] * n}) for n in range(5)
    )
    with other:
        assert Everything.objects.filter(data__n__gte=3).count() == 2
        assert Everything.objects.filter(data__tags__1="x").count() == 3
        assert Everything.objects.annotate(low=Lower("text")).filter(low="n2").exists()
        assert len(list(Everything.objects.iterator(chunk_size=2))) == 5
        assert Everything.objects.annotate(y=TruncYear("moment")).first() is not None
        assert len(Everything.objects.raw("SELECT * FROM library_everything")) == 5


def test_inherited_rows(host: Host, other: Host) -> None:
    ann = Patron.objects.create(name="Ann", gift=1)
    Patron.objects.create(name="Bob", invited_by=ann)
    with other:
        assert Patron.objects.get(invited_by__name="Ann").name == "Bob"
        assert Member.objects.filter(patron__gift=1).get().name == "Ann"


# Forms


class BookForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Book
        fields = ("title", "author", "tags", "stock")


def test_a_model_form(library: dict[str, Author], host: Host, other: Host) -> None:
    data = {
        "title": "New",
        "author": library["Ann"].pk,
        "tags": ["art", "bees"],
        "stock": 1,
    }
    form = BookForm(data)
    assert form.is_valid(), form.errors
    book = form.save()
    with other:
        there = Book.objects.get(pk=book.pk)
        assert there.tags.count() == 2
        BookForm({**data, "tags": ["bees"]}, instance=there).save()
    host.catch_up()
    assert [tag.name for tag in book.tags.all()] == ["bees"]


def test_a_model_form_validates_constraints(
    library: dict[str, Author], other: Host
) -> None:
    class AuthorForm(forms.ModelForm):  # type: ignore[type-arg]
        class Meta:
            model = Author
            fields = ("name", "born")

    taken = AuthorForm({"name": "Ann", "born": 1})
    assert taken.errors == {"name": ["Author with this Name already exists."]}
    negative = BookForm({"title": "x", "author": library["Ann"].pk, "stock": -1})
    assert "stock_not_negative" in str(negative.errors)
    orphan = BookForm({"title": "x", "author": 999, "stock": 1})
    assert "author" in orphan.errors


def test_a_formset(library: dict[str, Author], other: Host) -> None:
    formset_class: Any = inlineformset_factory(
        Author, Book, fields=("title", "stock"), fk_name="author", extra=1
    )
    ann = library["Ann"]
    first, second = ann.books.order_by("pk")
    formset = formset_class(
        {
            "books-TOTAL_FORMS": 3,
            "books-INITIAL_FORMS": 2,
            "books-0-id": first.pk,
            "books-0-title": "Changed",
            "books-0-stock": 3,
            "books-1-id": second.pk,
            "books-1-title": second.title,
            "books-1-stock": 0,
            "books-1-DELETE": "on",
            "books-2-title": "Added",
            "books-2-stock": 1,
        },
        instance=ann,
    )
    assert formset.is_valid(), formset.errors
    formset.save()
    with other:
        titles = Author.objects.get(name="Ann").books.values_list("title", flat=True)
        assert sorted(titles) == ["Added", "Changed"]


# The admin


@pytest.fixture
def admin(host: Host) -> Client:
    """A client that is logged in to the admin on ``host``."""
    User.objects.create_superuser("root", "root@example.com", "secret")
    client = Client()
    assert client.login(username="root", password="secret")
    return client


def test_the_admin_adds_changes_and_deletes(
    admin: Client, library: dict[str, Author], other: Host
) -> None:
    inline = {
        "books-TOTAL_FORMS": 0,
        "books-INITIAL_FORMS": 0,
        "books-MIN_NUM_FORMS": 0,
        "books-MAX_NUM_FORMS": 1000,
    }
    add = reverse("admin:library_author_add")
    response = admin.post(add, {"name": "Cid", "born": 1980, **inline})
    assert response.status_code == 302
    with other:
        cid = Author.objects.get(name="Cid")
    change = reverse("admin:library_author_change", args=[cid.pk])
    response = admin.post(change, {"name": "Cyd", "born": 1981, **inline})
    assert response.status_code == 302
    with other:
        assert Author.objects.get(pk=cid.pk).born == 1981
    delete = reverse("admin:library_author_delete", args=[cid.pk])
    assert admin.post(delete, {"post": "yes"}).status_code == 302
    with other:
        assert not Author.objects.filter(pk=cid.pk).exists()
        assert [entry.action_flag for entry in LogEntry.objects.order_by("pk")] == [
            1,
            2,
            3,
        ]


def test_the_admins_list_and_its_actions(
    admin: Client, library: dict[str, Author], other: Host
) -> None:
    page = reverse("admin:library_author_changelist")
    assert b"Ann" in admin.get(page, {"q": "An"}).content
    assert b"Bob" not in admin.get(page, {"q": "An"}).content
    response = admin.post(
        page,
        {
            "action": "delete_selected",
            "_selected_action": [str(library["Ann"].pk)],
            "post": "yes",
        },
    )
    assert response.status_code == 302
    with other:
        assert [author.name for author in Author.objects.all()] == ["Bob"]
        assert Book.objects.count() == 1


def test_the_admin_shows_keys_that_are_hostile(admin: Client, other: Host) -> None:
    for name in ("../x", "a/b", "%2F", "a\nb", "🦄", "_5F"):
        Tag.objects.create(name=name)
        change = reverse("admin:library_tag_change", args=[quote(name)])
        data = {"name": name, "note": "changed"}
        assert admin.get(change).status_code == 200
        assert admin.post(change, data).status_code == 302
        with other:
            assert Tag.objects.filter(note="changed").exists()
        Tag.objects.all().delete()


def test_saving_in_the_admin_is_one_commit(
    admin: Client, library: dict[str, Author], host: Host
) -> None:
    change = reverse("admin:library_tag_change", args=["art"])
    commits = []
    for note in "xy":  # the first one has ids reserved for the admin's log
        before = host.position
        assert admin.post(change, {"name": "art", "note": note}).status_code == 302
        commits.append(host.position - before)
    assert commits[1] == 1


# Users and sessions


def test_users_groups_and_permissions(host: Host, other: Host) -> None:
    user = User.objects.create_user("ann", password="secret")
    group = Group.objects.create(name="editors")
    content_type = ContentType.objects.get_for_model(Book)
    permission = Permission.objects.create(
        codename="burn", name="Can burn", content_type=content_type
    )
    group.permissions.add(permission)
    user.groups.add(group)
    with other:
        found = authenticate(username="ann", password="secret")
        assert isinstance(found, User)
        assert found.has_perm("library.burn")
        assert authenticate(username="ann", password="wrong") is None


def test_sessions(host: Host, other: Host) -> None:
    session = SessionStore()
    session["cart"] = [1, 2]
    session.save()
    assert session.session_key is not None
    with other:
        same = SessionStore(session.session_key)
        assert same["cart"] == [1, 2]
        same["cart"] = [3]
        same.save()
    host.catch_up()
    assert SessionStore(session.session_key)["cart"] == [3]
    session.flush()
    call_command("clearsessions")
    with other:
        assert not Session.objects.exists()


def test_a_login_on_one_host_is_one_on_the_other(host: Host, other: Host) -> None:
    User.objects.create_superuser("root", "", "secret")
    client = Client()
    client.login(username="root", password="secret")
    with other:
        assert client.get("/admin/").status_code == 200
        client.logout()
    host.catch_up()
    assert client.get("/admin/").status_code == 302


# Async


def test_the_async_orm(host: Host, other: Host) -> None:
    async def work() -> None:
        ann = await Author.objects.acreate(name="Ann", born=1)
        await Author.objects.abulk_create([Author(name="Bob"), Author(name="Cid")])
        assert await Author.objects.acount() == 3
        _same, created = await Author.objects.aget_or_create(name="Ann")
        assert not created
        await Author.objects.aupdate_or_create(name="Bob", defaults={"born": 2})
        ann.born = 3
        await ann.asave()
        await ann.arefresh_from_db()
        assert await Author.objects.filter(born=3).aexists()
        assert (await Author.objects.aget(name="Bob")).born == 2
        assert await Author.objects.filter(name="Cid").aupdate(born=4) == 1
        assert [author.name async for author in Author.objects.order_by("born")] == [
            "Bob",
            "Ann",
            "Cid",
        ]
        assert (await Author.objects.aaggregate(Sum("born")))["born__sum"] == 9
        assert (await Author.objects.order_by("pk").afirst()) == ann
        book = await Book.objects.acreate(title="x", author=ann)
        tag = await Tag.objects.acreate(name="a")
        await book.tags.aadd(tag)
        assert [one async for one in book.tags.all()] == [tag]
        await ann.adelete()
        await Author.objects.filter(name="Cid").adelete()
        assert len(await Author.objects.ain_bulk()) == 1

    async_to_sync(work)()
    with other:
        assert [author.name for author in Author.objects.all()] == ["Bob"]


# Fixtures


def test_dumpdata_and_loaddata(
    library: dict[str, Author], hosts: MakeHost, other: Host, tmp_path: Path
) -> None:
    Everything.objects.create(
        text="é\n", blob=b"\0\xff", data={"a": [1]}, money=Decimal("1.500"), whole=2**60
    )
    path = tmp_path / "library.json"
    call_command("dumpdata", "library", output=str(path), verbosity=0)
    dumped = json.loads(path.read_text())
    for model in (Everything, Book, Author, Tag):
        model._default_manager.all().delete()
    with other:
        call_command("loaddata", str(path), verbosity=0)
        out = io.StringIO()
        call_command("dumpdata", "library", stdout=out)
        assert json.loads(out.getvalue()) == dumped


def test_loaddata_is_one_commit_and_all_or_nothing(
    host: Host, other: Host, tmp_path: Path
) -> None:
    good = [{"model": "library.tag", "pk": n, "fields": {"note": ""}} for n in "abc"]
    path = tmp_path / "tags.json"
    path.write_text(json.dumps(good))
    before = host.position
    call_command("loaddata", str(path), verbosity=0)
    assert host.position == before + 1
    orphan = {
        "model": "library.book",
        "pk": 1,
        "fields": {"title": "x", "author": 77, "stock": 1},
    }
    path.write_text(json.dumps([{**good[0], "pk": "d"}, orphan]))
    with pytest.raises(Exception, match="library.book|library_book"):
        call_command("loaddata", str(path), verbosity=0)
    with other:
        assert Tag.objects.count() == 3


def test_forward_references_in_a_fixture(
    host: Host, other: Host, tmp_path: Path
) -> None:
    path = tmp_path / "members.json"
    path.write_text(
        json.dumps(
            [
                {
                    "model": "library.member",
                    "pk": pk,
                    "fields": {"name": name, "invited_by": by},
                }
                for pk, name, by in ((1, "a", 2), (2, "b", None))
            ]
        )
    )
    call_command("loaddata", str(path), verbosity=0)
    with other:
        assert Member.objects.get(name="a").invited_by == Member.objects.get(name="b")


def test_the_flush_command(library: dict[str, Author], other: Host) -> None:
    call_command("flush", interactive=False, verbosity=0)
    with other:
        assert not Author.objects.exists()
        assert not Book.objects.exists()


# ATOMIC_REQUESTS


def test_atomic_requests(
    library: dict[str, Author], host: Host, other: Host, admin: Client
) -> None:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    page = reverse("admin:library_tag_change", args=["art"])
    try:
        assert admin.post(page, {"name": "art", "note": "x"}).status_code == 302
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    with other:
        assert Tag.objects.get(name="art").note == "x"


def test_counters_do_not_lose_increments(host: Host, other: Host) -> None:
    Author.objects.create(name="hits", born=0)
    for number in range(20):
        with (host, other)[number % 2]:
            Author.objects.filter(name="hits").update(born=F("born") + 1)
            with transaction.atomic():
                Author.objects.filter(name="hits").update(born=F("born") + 1)
    with other:
        assert Author.objects.get(name="hits").born == 40


def test_conditions_in_constraints(host: Host, other: Host) -> None:
    Place.objects.create(shelf="s", number=1, label="a")
    with other:
        assert Place.objects.filter(Q(label="a") | ~Q(shelf="s")).count() == 1
