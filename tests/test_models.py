from __future__ import annotations

import copy
import datetime as dt
import pickle
import re
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connection, models, transaction
from django.db.migrations import Migration
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.graph import MigrationGraph
from django.db.migrations.questioner import MigrationQuestioner
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.writer import MigrationWriter
from django.db.models import F
from django.db.models.base import ModelBase
from django.test.utils import CaptureQueriesContext, isolate_apps

from s3cache.exceptions import RowChanged, TransactionConflict
from s3cache.managers import S3Manager
from s3cache.models import S3Model
from s3cache.options import S3Options
from s3cache.remembered import name_of
from s3cache.routers import InBucket
from s3cache.uuids import uuid7
from tests.testapp.models import (
    Category,
    Coded,
    Counted,
    Gear,
    Grid,
    Keyed,
    Named,
    Place,
    PlaceProxy,
    Product,
    Shop,
)

# The primary key


def test_the_default_primary_key_is_a_uuidv7_in_the_first_column() -> None:
    pk = Product._meta.pk

    assert Product._meta.concrete_fields[0] is pk
    assert (type(pk), pk.name, pk.default) == (models.UUIDField, "id", uuid7)
    assert not pk.editable
    assert Product().pk.version == 7


def test_keys_are_in_the_order_of_creation() -> None:
    keys = [Product().pk for _ in range(100)]

    assert keys == sorted(set(keys))


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Coded, ["name", "code"]),  # below an abstract class between
        (Counted, ["id"]),  # with the name of the default
        (Keyed, ["key"]),  # from another abstract base
        (Gear, ["id", "name", "weight"]),
        (Shop, ["id", "name", "place_ptr", "rooms"]),
        (PlaceProxy, ["id", "name"]),
    ],
)
def test_any_primary_key_replaces_the_default(
    model: type[models.Model], names: list[str]
) -> None:
    assert [field.name for field in model._meta.concrete_fields] == names
    assert model.check() == []


def test_a_composite_primary_key_replaces_the_default() -> None:
    assert [field.name for field in Grid._meta.concrete_fields] == ["x", "y", "value"]
    assert Grid._meta.pk.name == "pk"


def test_each_model_has_a_field_of_its_own() -> None:
    assert Product._meta.pk is not Gear._meta.pk
    assert Product._meta.pk.model is Product


@isolate_apps("tests.testapp")
def test_a_one_to_one_field_may_be_the_primary_key() -> None:
    class Detail(S3Model):
        product = models.OneToOneField(Product, models.CASCADE, primary_key=True)

        class Meta:
            app_label = "testapp"

    assert [field.name for field in Detail._meta.concrete_fields] == ["product"]


@isolate_apps("tests.testapp")
def test_a_child_of_two_concrete_parents_takes_the_first_link() -> None:
    class Other(Named):
        other = models.AutoField(primary_key=True)

        class Meta:
            app_label = "testapp"

    class Both(Coded, Other):
        name = None  # type: ignore[assignment]

        class Meta:
            app_label = "testapp"

    assert Both._meta.pk.name == "coded_ptr"


@pytest.mark.django_db
def test_a_child_of_multi_table_inheritance_shares_its_parents_key() -> None:
    shop = Shop.objects.create(name="corner", rooms=2)

    assert Place.objects.get().pk == shop.pk
    assert PlaceProxy.objects.get() == Place.objects.get()
    assert Shop.objects.get().rooms == 2


def test_a_model_form_leaves_the_default_key_alone() -> None:
    from django.forms import modelform_factory

    assert list(modelform_factory(Category, fields="__all__")().fields) == ["name"]


# Migrations


def migrated_app() -> tuple[ProjectState, Migration]:
    """The state of the test app, and its first migration as autodetected."""
    after = ProjectState()
    for model in apps.get_app_config("testapp").get_models():
        after.add_model(ModelState.from_model(model))
    changes = detected(ProjectState(), after)
    return after, changes["testapp"][0]


def detected(before: ProjectState, after: ProjectState) -> dict[str, list[Migration]]:
    questioner = MigrationQuestioner({"ask_initial": True})
    # It takes parts out of the states that it compares.
    detector = MigrationAutodetector(before.clone(), after.clone(), questioner)
    return detector.changes(MigrationGraph())


def test_migrations_name_the_default_by_a_path_that_stays() -> None:
    _, migration = migrated_app()
    text = MigrationWriter(migration).as_string()

    assert (
        "('id', models.UUIDField(default=s3cache.uuids.uuid7, editable=False, "
        "primary_key=True, serialize=False, verbose_name='ID'))"
    ) in text
    assert "bases=(s3cache.routers.InBucket, models.Model)" in text
    named = set(re.findall(r"s3cache\.[\w.]+", text))
    assert named == {"s3cache.routers", "s3cache.routers.InBucket"} | {
        "s3cache.uuids",
        "s3cache.uuids.uuid7",
    }


def test_a_migration_that_was_written_leaves_nothing_to_migrate() -> None:
    after, migration = migrated_app()
    namespace: dict[str, Any] = {}
    exec(MigrationWriter(migration).as_string(), namespace)  # noqa: S102
    written = namespace["Migration"]("0001_initial", "testapp")

    before = written.mutate_state(ProjectState())

    assert detected(before, after) == {}


def test_models_in_a_migrations_state_are_marked_and_otherwise_plain() -> None:
    after, _ = migrated_app()

    historical = after.apps.get_model("testapp", "product")

    assert historical is not Product
    assert historical._meta.pk.default is uuid7
    assert type(historical) is ModelBase
    assert issubclass(historical, InBucket)
    for name in ("shop", "placeproxy"):  # through their parents
        assert issubclass(after.apps.get_model("testapp", name), InBucket)
    assert not issubclass(after.apps.get_model("testapp", "note"), InBucket)


# S3Meta


def test_options_are_resolved_and_frozen() -> None:
    assert Product._s3meta == S3Options(
        partitions={
            "by_region": ("region",),
            "by_region_and_kind": ("region", "kind"),
            "by_category": ("category",),
        },
        ttl=60,
    )
    with pytest.raises(AttributeError):
        Product._s3meta.ttl = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Product._s3meta.partitions["x"] = ("y",)  # type: ignore[index]


def test_without_s3meta_all_is_as_the_database_says() -> None:
    assert Gear._s3meta == S3Options(
        partitions={},
        partition_aware=True,
        ttl=None,
        max_age=None,
        cache=None,
        records=None,
        database=None,
    )


def test_s3meta_is_inherited_as_a_whole() -> None:
    assert Place._s3meta == S3Options(ttl=10, records=False)
    assert Shop._s3meta == PlaceProxy._s3meta == Place._s3meta


def test_s3meta_can_be_derived_from_the_parents() -> None:
    assert Coded._s3meta == S3Options(ttl=20, records=False)


@isolate_apps("tests.testapp")
def test_an_s3meta_of_its_own_replaces_the_parents() -> None:
    class Child(Place):
        class Meta:
            app_label = "testapp"

        class S3Meta:
            max_age = 5

    assert Child._s3meta == S3Options(max_age=5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "partition",
            {},
            " has unknown 'partition'. Known are 'partitions', 'partition_aware', "
            "'ttl', 'max_age', 'cache', 'cached', 'records', 'write_behind', "
            "'database'.",
        ),
        ("ttl", 0, ".ttl is 0, but must be a number of seconds above 0."),
        ("max_age", -1, ".max_age is -1, but must be a number of seconds, 0 or more."),
        ("cache", "", ".cache is '', but must be a string that is not empty."),
        ("records", "no", ".records is 'no', but must be True or False."),
        (
            "partition_aware",
            None,
            ".partition_aware is None, but must be True or False.",
        ),
        (
            "partitions",
            ["region"],
            ".partitions is ['region'], but must be a dict with strings as keys.",
        ),
        (
            "partitions",
            {"by_region": "region"},
            ".partitions['by_region'] is 'region', but must be a list of one or more "
            "field names, each once.",
        ),
        (
            "partitions",
            {"by_region": []},
            ".partitions['by_region'] is [], but must be a list of one or more field "
            "names, each once.",
        ),
        (
            "partitions",
            {"by_region": ["a", "a"]},
            ".partitions['by_region'] is ['a', 'a'], but must be a list of one or more "
            "field names, each once.",
        ),
    ],
)
@isolate_apps("tests.testapp")
def test_wrong_options_are_refused_when_the_class_is_made(
    name: str, value: object, message: str
) -> None:
    with pytest.raises(ImproperlyConfigured) as refusal:
        type(
            "Wrong",
            (S3Model,),
            {
                "__module__": "tests.testapp.models",
                "__qualname__": "Wrong",
                "S3Meta": type("S3Meta", (), {name: value}),
            },
        )
    assert str(refusal.value) == f"tests.testapp.models.Wrong.S3Meta{message}"


@isolate_apps("tests.testapp")
def test_s3meta_must_be_a_class() -> None:
    with pytest.raises(
        ImproperlyConfigured, match="is {'ttl': 5}, but must be a class"
    ):

        class Wrong(S3Model):
            S3Meta = {"ttl": 5}

            class Meta:
                app_label = "testapp"


# save(if_unchanged=True)


@pytest.fixture
def product(db: None) -> Product:
    Product.objects.create(sku="a", price=Decimal("1.50"), data={"a": [1]})
    return Product.objects.get()


def changed(instance: models.Model, *names: str) -> Any:
    message = (
        f"The row of {name_of(instance)} changed since it was loaded, "
        f"in {', '.join(names)}."
    )
    return pytest.raises(RowChanged, match=f"^{re.escape(message)}$")


def test_an_unchanged_row_is_saved(product: Product) -> None:
    product.stock = 5
    product.save(if_unchanged=True)

    assert Product.objects.get().stock == 5


def test_a_row_that_somebody_else_changed_is_not_overwritten(product: Product) -> None:
    Product.objects.update(stock=7)
    product.stock = 5

    with changed(product, "stock"):
        product.save(if_unchanged=True)

    assert Product.objects.get().stock == 7


def test_a_change_in_another_field_counts_too(product: Product) -> None:
    Product.objects.update(region="US", price=2)
    product.stock = 5

    with changed(product, "region", "price"):
        product.save(if_unchanged=True, update_fields=["stock"])


def test_row_changed_is_a_transaction_conflict(product: Product) -> None:
    Product.objects.update(stock=7)

    with pytest.raises(TransactionConflict):
        product.save(if_unchanged=True)


def test_a_deleted_row_is_not_inserted_again(product: Product) -> None:
    Product.objects.all().delete()

    message = (
        f"^The row of {re.escape(name_of(product))} was deleted since it was loaded.$"
    )
    with pytest.raises(RowChanged, match=message):
        product.save(if_unchanged=True)

    assert not Product.objects.exists()


def test_without_if_unchanged_the_last_writer_wins(product: Product) -> None:
    Product.objects.update(stock=7)
    product.stock = 5
    product.save()

    assert Product.objects.get().stock == 5


def test_what_was_saved_is_what_the_next_save_compares_with(product: Product) -> None:
    for stock in range(3):
        product.stock = stock
        product.save(if_unchanged=True)

    Product.objects.update(stock=7)
    with changed(product, "stock"):
        product.save(if_unchanged=True)


def test_a_new_instance_is_inserted_and_can_be_saved_again(db: None) -> None:
    product = Product(sku="a", price="1.5")
    product.save(if_unchanged=True)
    product.stock = 1
    product.save(if_unchanged=True)

    assert Product.objects.get().stock == 1


def test_a_new_instance_overwrites_nothing(product: Product) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Product(pk=product.pk, sku="b").save(if_unchanged=True)

    assert Product.objects.get().sku == "a"


def test_values_compare_as_the_database_gets_them(db: None) -> None:
    product = Product.objects.create(
        sku="a",
        price="1.5",
        stock="3",
        data={1: dt.date(2024, 1, 1), "b": (1, 2)},
        blob=bytearray(b"x"),
        file="a.txt",
    )
    product.save(if_unchanged=True)
    product.refresh_from_db()
    product.save(if_unchanged=True)


def test_a_mutable_value_is_compared_with_what_it_was(product: Product) -> None:
    product.data["a"].append(2)
    product.save(if_unchanged=True)
    assert Product.objects.get().data == {"a": [1, 2]}

    Product.objects.update(data={"a": [1, 2, 3]})
    product.data["a"].append(3)
    with changed(product, "data"):
        product.save(if_unchanged=True)


@pytest.mark.parametrize("value", [{"a": [True]}, {"a": [1.0]}, {"a": ["1"]}, {}])
def test_json_that_python_takes_for_equal_counts_as_changed(
    product: Product, value: object
) -> None:
    Product.objects.update(data=value)

    with changed(product, "data"):
        product.save(if_unchanged=True)


def test_the_order_of_json_keys_does_not_matter(db: None) -> None:
    product = Product.objects.create(sku="a", data={"a": 1, "b": 2})
    Product.objects.update(data={"b": 2, "a": 1})

    product.save(if_unchanged=True)


def test_deferred_fields_are_not_compared(product: Product) -> None:
    product = Product.objects.only("stock").get()
    Product.objects.update(region="US")
    product.stock = 5
    product.save(if_unchanged=True)

    assert Product.objects.values_list("region", "stock").get() == ("US", 5)


def test_a_deferred_field_is_compared_once_it_is_loaded(product: Product) -> None:
    product = Product.objects.only("stock").get()
    assert product.region == "EU"
    Product.objects.update(region="US")

    with changed(product, "region"):
        product.save(if_unchanged=True)


def test_refresh_from_db_remembers_what_it_read(product: Product) -> None:
    Product.objects.update(region="US", stock=7)

    product.refresh_from_db(fields=["region"])
    with changed(product, "stock"):
        product.save(if_unchanged=True)

    product.refresh_from_db()
    product.save(if_unchanged=True)


def test_update_fields_remembers_what_it_wrote(product: Product) -> None:
    product.stock = 5
    product.region = "US"
    product.save(update_fields=["stock"])
    product.save(if_unchanged=True)

    assert Product.objects.values_list("region", "stock").get() == ("US", 5)


def test_bulk_update_remembers_what_it_wrote(product: Product) -> None:
    product.stock = 5
    Product.objects.bulk_update([product], ["stock"])

    product.save(if_unchanged=True)


def test_what_only_the_database_knows_has_to_be_loaded_first(product: Product) -> None:
    product.stock = F("stock") + 1
    product.save()
    if isinstance(product.stock, int):
        pytest.skip("this Django gets the value back from the database")

    message = (
        f"Whether the row of {name_of(product)} changed cannot be told: what it "
        f"holds in stock is known to the database alone. Call refresh_from_db() first."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        product.save(if_unchanged=True)

    product.refresh_from_db()
    product.save(if_unchanged=True)
    assert Product.objects.get().stock == 1


def test_an_instance_that_was_not_loaded_cannot_tell(db: None) -> None:
    (product,) = Product.objects.bulk_create([Product(sku="a")])

    message = (
        f"Whether the row of {name_of(product)} changed cannot be told: the instance "
        f"was not loaded from it. Call refresh_from_db() first."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        product.save(if_unchanged=True)


def test_saving_some_fields_does_not_count_as_having_loaded(db: None) -> None:
    Coded.objects.create(code="a")
    coded = Coded(code="a", name="b")
    coded.save(update_fields=["name"])

    with pytest.raises(ValueError, match="the instance was not loaded"):
        coded.save(if_unchanged=True)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.loads])
def test_copies_and_pickles_remember_too(product: Product, duplicate: Any) -> None:
    given: Any = pickle.dumps(product) if duplicate is pickle.loads else product
    duplicated = duplicate(given)
    duplicated.save(if_unchanged=True)

    Product.objects.update(stock=7)
    with changed(duplicated, "stock", "changed"):
        pickle.loads(pickle.dumps(product)).save(if_unchanged=True)  # noqa: S301


def test_a_caught_conflict_leaves_the_outer_transaction_usable(
    product: Product,
) -> None:
    Product.objects.update(stock=7)

    with transaction.atomic():
        with pytest.raises(RowChanged):
            product.save(if_unchanged=True)
        Category.objects.create(name="after")

    assert Category.objects.exists()


def test_a_child_compares_its_parents_fields_too(db: None) -> None:
    Shop.objects.create(name="corner", rooms=1)
    shop = Shop.objects.get()
    shop.rooms = 2
    shop.save(if_unchanged=True)

    Place.objects.update(name="centre")
    with changed(shop, "name"):
        shop.save(if_unchanged=True)


def test_a_composite_key_finds_its_row(db: None) -> None:
    Grid.objects.create(x=1, y=1)
    Grid.objects.create(x=1, y=2)
    cell = Grid.objects.get(pk=(1, 1))
    Grid.objects.filter(pk=(1, 2)).update(value=7)
    cell.save(if_unchanged=True)

    Grid.objects.update(value=8)
    with changed(cell, "value"):
        cell.save(if_unchanged=True)


def test_the_check_and_the_write_are_one_transaction(product: Product) -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        product.save(if_unchanged=True)

    statements = [query["sql"].split()[0] for query in queries]
    assert statements == ["SAVEPOINT", "SELECT", "UPDATE", "RELEASE"]


def test_if_unchanged_does_not_go_with_force_insert(product: Product) -> None:
    with pytest.raises(ValueError, match="Cannot insert a row only if it is unchanged"):
        product.save(if_unchanged=True, force_insert=True)


def test_if_unchanged_takes_keyword_arguments_only(product: Product) -> None:
    with pytest.raises(TypeError, match="keyword arguments only"):
        product.save(False, if_unchanged=True)


def test_asave_does_as_save(product: Product) -> None:
    Product.objects.update(stock=7)

    with changed(product, "stock"):
        async_to_sync(product.asave)(if_unchanged=True)

    async_to_sync(product.asave)(update_fields=["region"])


def test_a_value_that_cannot_be_kept_does_not_keep_the_row_from_being_read(
    db: None,
) -> None:
    # As a custom field may load what it cannot save.
    Product.objects.create(sku="a")
    product = Product.from_db("default", ["id", "data"], [uuid7(), {"a": lambda: 0}])

    with pytest.raises(ValueError, match="what it holds in data is known to the"):
        product.save(if_unchanged=True)


def test_the_default_manager_is_an_s3manager() -> None:
    assert type(Product.objects) is S3Manager
    assert Product._default_manager is Product.objects
