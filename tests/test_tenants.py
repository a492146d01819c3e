"""A database for each tenant, all in one process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from s3cache import checks, conf, tenants
from s3cache.conditional import depends_on
from s3cache.exceptions import EntryFormatError, LogDiverged, StoreError
from s3cache.facade import cache_of
from s3cache.keeper import ending
from s3cache.keeper.rounds import KeeperOptions
from s3cache.keeper.run import keep_now
from s3cache.log.head import dropped_database
from s3cache.log.keys import HEAD, entry_key
from s3cache.management.commands.s3cache_verify import look
from s3cache.middleware import ReadYourWritesMiddleware, ResponseCacheMiddleware
from s3cache.middleware.cookies import POSITION_COOKIE
from s3cache.middleware.read_your_writes import SALT
from s3cache.replica.replica import forget_replica
from s3cache.stores.base import Answer
from tests.db.hosts import MakeProcess, processes, together
from tests.engine import Bucket, Host, MakeHost, bucket, host, hosts, tables
from tests.testapp.models import Category, Product

__all__ = ["bucket", "host", "hosts", "processes", "tables"]


pytestmark = pytest.mark.parametrize("bucket", ["directory"], indirect=True)


@pytest.fixture(autouse=True)
def ready(host: Host, settings: Any) -> Iterator[None]:
    """The tenants' databases are like ``default``, which is a bucket's."""
    settings.DATABASE_ROUTERS = [tenants.TenantRouter.path]
    yield
    for name in tenants.opened():
        path = Path(connections.settings[f"default:{name}"]["NAME"])
        tenants.close(name)
        forget_replica(path)


@pytest.fixture
def no_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """``create()`` makes a database without tables; see ``make``."""
    monkeypatch.setattr(tenants, "call_command", lambda *args, **options: None)


#: What the documentation says that a tenant keeps.
IDLE_HANDLES = 2


def make(*names: str) -> None:
    """Databases with two tables, and without all of Django's migrations."""
    for name in names:
        alias = tenants.open(name)
        connection: Any = connections[alias]
        with connection.schema_editor() as editor:
            editor.create_model(Category)
            editor.create_model(Product)


def names_of() -> list[str]:
    return list(Category.objects.order_by("name").values_list("name", flat=True))


def test_each_tenant_has_rows_of_its_own() -> None:
    make("acme", "bolt")
    Category.objects.create(name="of all")
    for name in ("acme", "bolt"):
        with tenants.using(name):
            Category.objects.create(name=f"of {name}")
    for name in ("acme", "bolt"):
        with tenants.using(name):
            for _ in range(3):  # the hot path takes no tenant for another
                assert names_of() == [f"of {name}"]
                assert Category.objects.get().name == f"of {name}"
                assert Category.objects.count() == 1
    assert names_of() == ["of all"]


def test_a_database_is_made_with_all_its_tables(bucket: Bucket, settings: Any) -> None:
    settings.MIGRATION_MODULES = {}
    settings.INSTALLED_APPS = ["django.contrib.contenttypes", "s3cache"]
    alias = tenants.create("acme")
    assert alias == "default:acme"
    found = connections[alias].introspection.table_names()
    assert "django_content_type" in found
    with pytest.raises(tenants.TenantExists, match="holds a database already"):
        tenants.create("acme")


def test_where_it_lies(bucket: Bucket) -> None:
    alias = tenants.open("acme")
    connection: Any = connections[alias]
    usual: Any = connections["default"]
    assert connection.store.name == f"{usual.store.name}-tenants/acme"
    assert Path(connection.settings_dict["NAME"]).parent.name.endswith("-tenants")


def test_stores_of_one_bucket_have_one_client(s3_store: Any) -> None:
    other = s3_store.at("elsewhere/acme")
    assert other.client is s3_store.client
    assert other.put("key", b"body").status == 200
    assert s3_store.get("key").status == 404
    assert other.name.endswith("/elsewhere/acme")
    assert other.delete("key").status == 200


def test_a_row_stays_where_it_was_read() -> None:
    make("acme", "bolt")
    with tenants.using("acme"):
        category = Category.objects.create(name="old")
    with tenants.using("bolt"):
        category.name = "new"
        category.save()
        assert names_of() == []
        with pytest.raises(ValueError, match="the current database router prevents"):
            Product(sku="1", category=category).category = Category(name="x")
            product = Product.objects.create(sku="2")
            product.category = category
    with tenants.using("acme"):
        assert names_of() == ["new"]


def test_transactions_name_the_alias() -> None:
    make("acme")
    with (
        pytest.raises(ZeroDivisionError),
        tenants.using("acme") as alias,
        transaction.atomic(using=alias),
    ):
        assert tenants.current() == alias
        Category.objects.create(name="never")
        raise ZeroDivisionError
    with tenants.using("acme"):
        assert names_of() == []
    assert tenants.current() is None


def test_threads_and_tasks_have_tenants_of_their_own() -> None:
    make("acme")
    seen: list[str | None] = []

    def look() -> None:
        seen.append(tenants.current())

    with tenants.using("acme"):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        look()
    assert seen == [None, "default:acme"]


def test_an_idle_tenant_costs_no_request() -> None:
    make("acme")
    store = connections["default:acme"].store  # type: ignore[attr-defined]
    before = store.requests.total
    for _ in range(3):
        tenants.open("acme")
        with tenants.using("acme"):
            pass
    assert store.requests.total == before


@pytest.mark.parametrize("is_old", [False, True])
def test_what_is_dropped_is_gone(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, *, is_old: bool
) -> None:
    """But for ends of its log, where a late host could write otherwise."""
    make("acme")
    with tenants.using("acme"):
        Category.objects.create(name="gone")
    connection: Any = connections["default:acme"]
    store, path = connection.store, Path(connection.settings_dict["NAME"])
    before = len(store.list("").keys)
    if is_old:
        monkeypatch.setattr(ending, "BELIEVED_FOR", -1.0)
    assert tenants.drop("acme") == before
    head, *ends = sorted((one.key for one in store.list("").keys), key=HEAD.__ne__)
    assert ends == [entry_key(n) for n in ([3] if is_old else [1, 2, 3])]
    assert dropped_database(store.get(head).body)
    for key in ends:
        assert json.loads(store.get(key).body) == {"s3cache": 1, "dropped": True}
    # What processes agree by stays: one of them may have it open.
    assert [left.suffix for left in path.parent.glob("acme*")] == [".sqlite3-s3cache"]
    assert "default:acme" not in connections.settings
    with pytest.raises(tenants.UnknownTenant, match="'acme' is not open"):
        tenants.drop("acme")


def place_of(name: str) -> str:
    """Where a tenant's database lies."""
    place: str = connections.settings[f"default:{name}"]["OPTIONS"]["location"]
    return place


def late_host(hosts: MakeHost) -> Host:
    """Another one that uses "acme", and hears no more of it."""
    late = hosts("late", location=place_of("acme"))
    late.catch_up()
    return late


@pytest.mark.parametrize("answered", [1, 2, 3])
def test_a_drop_that_is_interrupted_is_done_by_the_next(
    hosts: MakeHost, monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    """And in between nobody is told that he has written something."""
    make("acme")
    late, place = late_host(hosts), place_of("acme")
    with tenants.using("acme"):
        Category.objects.create(name="unknown to the late")
    connection: Any = connections["default:acme"]
    store = connection.store
    original, left = store.put, [answered]

    def send(*args: Any, **how: Any) -> Answer:
        left[0] -= 1
        answer: Answer = Answer(0) if left[0] < 0 else original(*args, **how)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", send)
        with pytest.raises(StoreError):
            tenants.drop("acme")
    with late, pytest.raises(OperationalError):
        Category.objects.create(name="late")
    tenants.open("acme", location=place)
    assert tenants.drop("acme") > 0
    assert {one.key[:5] for one in store.list("").keys} == {HEAD, "_log/"}


def test_one_that_was_never_made_leaves_nothing() -> None:
    alias = tenants.open("acme")
    store = connections[alias].get_connection_params()["store"]
    assert tenants.drop("acme") == 0
    assert store.list("").keys == ()


def test_reading_makes_no_database_where_one_was_dropped() -> None:
    make("acme")
    tenants.drop("acme")
    tenants.open("acme")
    with tenants.using("acme"), pytest.raises(LogDiverged, match="was dropped"):
        names_of()


@pytest.mark.usefixtures("no_migrations")
def test_one_that_was_dropped_does_not_move() -> None:
    """And another one can be made there all the same."""
    make("acme")
    place = place_of("acme")
    tenants.drop("acme")
    tenants.open("acme", location=place)
    with pytest.raises(LogDiverged, match="was dropped"):
        tenants.move("acme", f"{place}-new")
    tenants.create("acme", location=place)
    make("acme")
    with tenants.using("acme"):
        assert names_of() == []


@pytest.mark.usefixtures("no_migrations")
@pytest.mark.parametrize("is_behind", [False, True])
def test_who_has_not_noticed_does_no_harm_to_the_next_of_that_name(
    hosts: MakeHost, *, is_behind: bool
) -> None:
    """And is told that nothing was written, however far behind it is."""
    make("acme")
    late, place = late_host(hosts), place_of("acme")
    with tenants.using("acme"):
        Category.objects.create(name="of the first")
    if not is_behind:
        late.catch_up()
    tenants.drop("acme")
    with late, pytest.raises(EntryFormatError, match="was dropped"):
        Category.objects.create(name="late")
    tenants.create("acme")
    make("acme")
    next_one: Any = connections["default:acme"]
    keep_now(next_one.replica, KeeperOptions(everything=True))
    assert look(next_one) == []
    with late, pytest.raises(EntryFormatError, match="was dropped"):
        Category.objects.create(name="late")
    with tenants.using("acme"):
        for number in range(3):
            Category.objects.create(name=f"{number}")
        assert names_of() == ["0", "1", "2"]
    anew = hosts("anew", location=place)
    with anew:
        assert names_of() == ["0", "1", "2"]
    late.connection.replica.side.remember("checked_at", 0.0)
    late.catch_up()
    with late:
        assert names_of() == ["0", "1", "2"]


@pytest.mark.usefixtures("no_migrations")
def test_threads_that_used_the_one_before_use_the_next() -> None:
    make("acme")

    def write(name: str) -> list[str]:
        with tenants.using("acme"):
            Category.objects.create(name=name)
            connections["default:acme"].close()  # as after a request
            return names_of()

    place = place_of("acme")
    with ThreadPoolExecutor(1) as other:
        assert other.submit(write, "1").result() == ["1"]
        tenants.move("acme", f"{place}-new")
        assert other.submit(write, "2").result() == ["1", "2"]
        assert write("3") == ["1", "2", "3"]
        tenants.drop("acme")
        tenants.create("acme", location=f"{place}-new")
        make("acme")
        assert other.submit(write, "4").result() == ["4"]
        assert write("5") == ["4", "5"]
        other.submit(connections.close_all).result()


def test_a_connection_from_before_is_used_no_more() -> None:
    make("acme")

    def read() -> None:
        Category.objects.using("default:acme").count()

    with ThreadPoolExecutor(1) as other:
        other.submit(read).result()
        before = other.submit(lambda: connections["default:acme"]).result()
        tenants.drop("acme")
        with pytest.raises(OperationalError, match="was closed for good"):
            other.submit(read).result()
        other.submit(before.close).result()
        with pytest.raises(OperationalError, match=r"enter tenants\.using\(\) again"):
            other.submit(before.ensure_connection).result()


def drop_and_make(home: str) -> None:
    """As in another process of this host, which is at ``home``."""
    django_settings.DATABASE_ROUTERS = [tenants.TenantRouter.path]
    tenants.open("acme", location=home)
    tenants.drop("acme")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tenants, "call_command", lambda *args, **options: None)
        tenants.create("acme", location=home)
    make("acme")
    with tenants.using("acme"):
        Category.objects.create(name="of the next")


def test_other_processes_of_the_host_notice(
    host: Host, processes: MakeProcess, bucket: Bucket
) -> None:
    make("acme")
    with tenants.using("acme"):
        Category.objects.create(name="of the first")
    home = place_of("acme")
    path = Path(host.settings["NAME"])
    processes(path.stem).call(drop_and_make, home)
    with tenants.using("acme"):
        assert names_of() == ["of the next"]
        Category.objects.create(name="and more")
        assert names_of() == ["and more", "of the next"]


def test_another_host_notices_that_it_was_dropped(hosts: MakeHost) -> None:
    make("acme")
    other = hosts("other", location=place_of("acme"))
    other.catch_up()
    tenants.drop("acme")
    other.connection.replica.side.remember("checked_at", 0.0)
    with pytest.raises(LogDiverged):
        other.catch_up()


def test_it_moves_with_all_rows_and_the_old_place_says_where_to(
    hosts: MakeHost,
) -> None:
    make("acme")
    with tenants.using("acme"):
        Category.objects.create(name="moved")
    old = place_of("acme")
    elsewhere = hosts("elsewhere", location=old)
    elsewhere.catch_up()
    place = f"{old}-new"
    assert tenants.move("acme", place) == "default:acme"
    with tenants.using("acme"):
        assert names_of() == ["moved"]
        Category.objects.create(name="after")
        assert names_of() == ["after", "moved"]
    with elsewhere, pytest.raises(EntryFormatError, match=f"was moved to .*{place}"):
        Category.objects.create(name="nowhere")
    new: Any = connections["default:acme"]
    assert new.store.name.endswith(place)


def test_a_move_that_was_interrupted_is_done_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from s3cache.keeper import restore

    make("acme")
    with tenants.using("acme"):
        Category.objects.create(name="moved")
    place = place_of("acme") + "-new"
    with monkeypatch.context() as patch:
        patch.setattr(restore, "write_database", None)
        with pytest.raises(TypeError):
            tenants.move("acme", place)
    tenants.move("acme", place)
    with tenants.using("acme"):
        assert names_of() == ["moved"]


def test_what_is_moved_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from s3cache.keeper import restore

    make("acme", "bolt")
    place = place_of("acme") + "-new"
    write_database = restore.write_database

    def look(*args: Any) -> Any:
        with ThreadPoolExecutor(1) as other:
            other.submit(use_bolt).result()
        return write_database(*args)

    def use_bolt() -> None:
        with tenants.using("bolt"):
            pass
        for function in (tenants.open, tenants.drop, tenants.create):
            with pytest.raises(RuntimeError, match="is being moved by another"):
                function("acme")
        with (
            pytest.raises(RuntimeError, match="is being moved by another"),
            tenants.using("acme"),
        ):
            pass

    monkeypatch.setattr(restore, "write_database", look)
    tenants.move("acme", place)
    with tenants.using("acme"):
        assert names_of() == []


def test_of_those_who_create_one_at_once_one_does(settings: Any) -> None:
    settings.MIGRATION_MODULES = {}
    settings.INSTALLED_APPS = ["django.contrib.contenttypes", "s3cache"]

    def create() -> str:
        with suppress(tenants.TenantExists):
            tenants.create("acme")
            return "made"
        with tenants.using("acme"):
            return "there"

    assert sorted(together([create] * 3)) == ["made", "there", "there"]


def test_one_that_exists_stays_open_for_others(settings: Any) -> None:
    settings.MIGRATION_MODULES = {}
    settings.INSTALLED_APPS = ["django.contrib.contenttypes", "s3cache"]
    tenants.create("acme")
    with tenants.using("acme"), pytest.raises(tenants.TenantExists):
        tenants.create("acme")
    assert tenants.opened() == ["acme"]


def test_threads_that_open_and_close_are_in_nobodys_way(settings: Any) -> None:
    settings.S3CACHE = {"CACHE": None, "OPEN_TENANTS": 1}
    names = ["acme", "bolt", "core"]

    def open_and_close() -> None:
        for number in range(60):
            name = names[number % len(names)]
            with suppress(RuntimeError, tenants.UnknownTenant):
                tenants.open(name)
                with tenants.using(name):
                    pass
                tenants.close(name)

    together([open_and_close] * 4)
    for name in names:
        tenants.open(name)
        tenants.close(name)
    assert tenants.opened() == []


def test_it_does_not_move_onto_another() -> None:
    make("acme", "bolt")
    taken = place_of("bolt")
    with pytest.raises(tenants.CannotMove, match="holds a database already"):
        tenants.move("acme", taken)


def test_what_is_in_use_is_neither_closed_nor_dropped() -> None:
    make("acme")
    with tenants.using("acme"):
        for function in (tenants.close, tenants.drop):
            with pytest.raises(RuntimeError, match="is in use"):
                function("acme")
        with pytest.raises(RuntimeError, match="is in use"):
            tenants.move("acme", "elsewhere")


@pytest.mark.parametrize("name", ["", "Acme", "a/b", "..", "-a", "a" * 64, "ä"])
def test_names_that_could_be_places_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a tenant"):
        tenants.open(name)


def test_one_name_is_one_place() -> None:
    tenants.open("acme")
    with pytest.raises(ValueError, match="is open at"):
        tenants.open("acme", location="elsewhere")


def test_without_the_router_nobody_uses_a_tenant(settings: Any) -> None:
    tenants.open("acme")
    settings.DATABASE_ROUTERS = ["s3cache.routers.S3Router"]
    with (
        pytest.raises(ImproperlyConfigured, match="lacks 's3cache.tenants"),
        tenants.using("acme"),
    ):
        pass


def test_tenants_are_no_databases_of_the_project() -> None:
    tenants.open("acme")
    conf.bucket_aliases.cache_clear()
    assert conf.bucket_aliases() == ("default",)
    assert conf.lives_in_bucket("default:acme")


# What people touch


def visit(view: Any, tenant: str, **extra: Any) -> Any:
    """What comes of a request for a tenant, with all middleware."""

    def opening(request: HttpRequest) -> HttpResponse:
        for one in reversed([ReadYourWritesMiddleware, ResponseCacheMiddleware]):
            made.append(one(made[-1]))
        with tenants.using(tenant):
            response: HttpResponse = made[-1](request)
            return response

    made: list[Any] = [view]
    headers = {name: value for name, value in extra.items() if value}
    return opening(RequestFactory().get("/", **headers))


def categories(request: HttpRequest) -> HttpResponse:
    return HttpResponse(",".join(names_of()))


def test_visitors_see_what_they_wrote_in_a_tenant_on_each_host(
    bucket: Bucket, hosts: MakeHost
) -> None:
    def write(request: HttpRequest) -> HttpResponse:
        Category.objects.create(name="here")
        return HttpResponse()

    make("acme")
    answer = visit(write, "acme")
    asking = RequestFactory(HTTP_COOKIE=answer.cookies.output(header="")).get("/")
    said = asking.get_signed_cookie(POSITION_COOKIE, salt=SALT)
    alias, database, number = str(said).rsplit(":", 2)
    assert alias == "default:acme"
    location = connections.settings[alias]["OPTIONS"]["location"]
    with hosts("other", location=location) as other:
        other.catch_up()
        Category.objects.create(name="there")
    for written, seen in (number, "here"), (str(other.position), "here,there"):
        position = f"{alias}:{database}:{written}"
        answer.set_signed_cookie(POSITION_COOKIE, position, salt=SALT)
        cookie = answer.cookies[POSITION_COOKIE].OutputString([])
        assert visit(categories, "acme", HTTP_COOKIE=cookie).content.decode() == seen


def test_a_tenant_that_was_dropped_in_the_request(bucket: Bucket) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        with tenants.using("bolt"):
            Category.objects.create(name="new")
        tenants.drop("bolt")
        return HttpResponse("dropped")

    make("acme", "bolt")
    answer = visit(view, "acme")
    assert (answer.content, {*answer.cookies}) == (b"dropped", set())


def test_no_response_of_a_tenant_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """For nothing in a request has to tell tenants apart."""
    make("acme", "bolt")
    for name in ("acme", "bolt"):
        with tenants.using(name):
            Category.objects.create(name=name)
    monkeypatch.setattr("s3cache.middleware.responses.write", pytest.fail)
    for name in ("acme", "bolt", "acme"):
        assert visit(categories, name).content.decode() == name


def test_the_facade_and_etags_are_of_the_tenant_in_use() -> None:
    make("acme", "bolt")
    view = depends_on(Category)(categories)
    tags = set()
    for name in ("acme", "bolt"):
        with tenants.using(name):
            assert cache_of(Category).warm_count() == 1
            tags.add(visit(view, name)["ETag"])
            tag = visit(view, name)["ETag"]
            assert visit(view, name, HTTP_IF_NONE_MATCH=tag).status_code == 304
    assert len(tags) == 2


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="needs /proc"
)


def handles(directory: Path = Path("/")) -> int:
    """The files below `directory` that this process has open."""
    count = 0
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it
            count += one.readlink().is_relative_to(directory)
    return count


@needs_proc
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_check_reckons_the_files_that_tenants_have_open(threads: int) -> None:
    names = ["acme", "bolt"]
    make(*names)
    connections.close_all()
    home = Path(connections.settings["default:acme"]["NAME"]).parent
    meeting = threading.Barrier(threads)

    def work() -> int:
        for name in names:
            with tenants.using(name) as alias:
                names_of()
                Category.objects.create(name="written")
                with transaction.atomic(using=alias):
                    names_of()
                    meeting.wait(30)
        seen = handles(home)
        meeting.wait(30)
        connections.close_all()
        return seen

    reckoned = checks.files_of_tenants(len(names), threads)
    assert together([work] * threads) == [reckoned] * threads
    assert handles(home) == reckoned  # kept for the next request


@needs_proc
def test_only_so_many_keep_files_open(settings: Any) -> None:
    settings.S3CACHE = {"CACHE": None, "OPEN_TENANTS": 3}
    names = [f"tenant-{number}" for number in range(8)]
    most = checks.files_of_tenants(3, 1) + (len(names) - 3) * IDLE_HANDLES
    before = handles()
    make(*names)
    assert handles() - before <= most
    for name in names:  # all can be used all the time
        with tenants.using(name):
            Category.objects.create(name=name)
            assert names_of() == [name]
    assert handles() - before <= most
    for name in names:
        tenants.close(name)
    assert handles() - before <= len(names) * IDLE_HANDLES
