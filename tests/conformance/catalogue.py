"""Which of Django's test apps are run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

#: The apps that exercise a database, in the order of the report.
APPS = (
    "basic",
    "queries",
    "lookup",
    "aggregation",
    "aggregation_regress",
    "annotations",
    "expressions",
    "expressions_case",
    "expressions_window",
    "many_to_many",
    "many_to_one",
    "m2m_through",
    "m2m_through_regress",
    "m2m_regress",
    "one_to_one",
    "ordering",
    "select_related",
    "prefetch_related",
    "foreign_object",
    "update",
    "update_only_fields",
    "delete",
    "delete_regress",
    "bulk_create",
    "get_or_create",
    "transactions",
    "transaction_hooks",
    "defer",
    "dates",
    "datetimes",
    "extra_regress",
    "null_queries",
    "or_lookups",
    "raw_query",
    "reverse_lookup",
    "model_inheritance",
    "model_inheritance_regress",
    "proxy_models",
    "generic_relations",
    "model_fields",
    "custom_pk",
    "custom_managers",
    "signals",
    "force_insert_update",
    "select_for_update",
    "constraints",
    "unmanaged_models",
    "async",
    "db_functions",
    "timezones",
    "fixtures",
    "serializers",
    "admin_changelist",
    "admin_views",
    "sessions_tests",
    "auth_tests",
    "contenttypes_tests",
    "migrations",
    "schema",
    "inspectdb",
    "multiple_database",
)

#: Begun first, so that no core waits for one of them at the end.
SLOW = ("admin_views", "auth_tests", "migrations")

#: Tests that compare times, and fail on either engine when something else is
#: busy. They are left out on both.
TIMED = (
    "serializers.test_deserialization.TestDeserializer.test_crafted_xml_performance",
)

#: What every change is tested with, by mode: a few apps of each kind. Those of
#: a group share a process: of small ones it is the start that takes the time.
SUBSET = {
    1: (
        ("queries",),
        ("lookup",),
        ("aggregation",),
        ("expressions",),
        ("many_to_many",),
        ("one_to_one",),
        ("prefetch_related",),
        ("model_inheritance",),
        (
            "raw_query",
            "signals",
            "select_for_update",
            "constraints",
            "async",
            "fixtures",
        ),
    ),
    2: (
        ("basic",),
        ("update",),
        ("delete_regress",),
        ("bulk_create",),
        ("get_or_create",),
        ("transactions", "transaction_hooks"),
        ("custom_pk",),
        ("force_insert_update",),
    ),
    3: (("custom_pk",), ("get_or_create",), ("transactions",)),
}

#: What runs in mode 2 with each read made until it is hot, with every change.
HOT_SUBSET = (("basic",), ("ordering",))

#: Apps that test no database and want a network, a browser or a terminal, or
#: that need libraries of a kind that this project has no use for.
NOT_RUN = frozenset({"gis_tests", "import_error_package", "test_runner_apps"})


def all_apps(tests: Path) -> tuple[str, ...]:
    """Every test app in Django's folder ``tests``."""
    found = (path.parent.name for path in tests.glob("*/__init__.py"))
    return tuple(sorted(set(found) - NOT_RUN))


def chosen(words: Iterable[str], tests: Path) -> tuple[str, ...]:
    """The apps that the command line names; ``all`` stands for every app.

    Raises ``ValueError`` for a name that this Django has no tests of.
    """
    known = all_apps(tests)
    apps: dict[str, None] = {}
    for word in words:
        if word == "all":
            apps |= dict.fromkeys(known)
        elif word.split(".")[0] in known:
            apps[word] = None
        else:
            raise ValueError(f"Django has no test app {word!r}.")
    return tuple(apps)
