"""The site with a fifth of its airports, loaded once.

`tests/example/test_demo.py` loads all of them, twice.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import Any, Final, cast

import airportsdata
import pytest

# Without the example's settings its models cannot be imported.
if os.environ.get("DJANGO_SETTINGS_MODULE") != "tests.example.settings":
    collect_ignore_glob = ["test_*.py"]

Record = dict[str, Any]


# Whole countries, for what tests name has neighbours; and the few airports
# that are called with a sign of SQL.
_WHOLE: Final = frozenset(
    ["AQ", "CH", "DE", "FJ", "FR", "IS", "IT", "KR", "LU", "NZ", "XK"]
)
_NAMED: Final = frozenset(["CYLT", "FHAW", "KJFK", "NFCI", "NFNG", "NZSP", "SCIP"])
_ZONE: Final = "America/Argentina/Ushuaia"
_SIGNS: Final = frozenset('%_\\"')


def _is_wanted(record: Record) -> bool:
    return (
        record["country"] in _WHOLE
        or record["icao"] in _NAMED
        or record["tz"] == _ZONE
        or not _SIGNS.isdisjoint(record["icao"] + record["name"])
        or zlib.crc32(record["icao"].encode()) % 6 == 0
    )


@pytest.fixture(scope="session")
def everything() -> dict[str, Record]:
    """All airports as their publisher has them, by code."""
    return cast("dict[str, Record]", airportsdata.load("ICAO"))


@pytest.fixture(scope="session")
def published(everything: dict[str, Record]) -> Iterator[dict[str, Record]]:
    """Those that are published as far as the site knows."""
    wanted = {code: one for code, one in everything.items() if _is_wanted(one)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(airportsdata, "load", lambda code_type: wanted)
        yield wanted


@pytest.fixture(scope="session")
def django_db_setup(
    django_db_setup: None, django_db_blocker: Any, published: dict[str, Record]
) -> None:
    from django.core.management import call_command

    with django_db_blocker.unblock():
        call_command("load_airports", verbosity=0)


@pytest.fixture
def editor(db: None) -> Any:
    """Somebody who may change airports and nothing else."""
    from django.contrib.auth.models import Permission, User

    user = User.objects.create_user("editor", password="edit me")
    user.user_permissions.add(Permission.objects.get(codename="change_airport"))
    return user
