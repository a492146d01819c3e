"""The site with all its airports, loaded once."""

from __future__ import annotations

import os
from typing import Any, cast

import airportsdata
import pytest

# Without the example's settings its models cannot be imported.
if os.environ.get("DJANGO_SETTINGS_MODULE") != "tests.example.settings":
    collect_ignore_glob = ["test_*.py"]

Record = dict[str, Any]


@pytest.fixture(scope="session")
def published() -> dict[str, Record]:
    """The airports as their publisher has them, by code."""
    return cast("dict[str, Record]", airportsdata.load("ICAO"))


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
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
