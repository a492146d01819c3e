"""A site with the statistics in its admin, whose database is in a bucket."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Permission, User
from django.test import Client

from tests.engine import Host, bucket, host, hosts, tables
from tests.metrics.conftest import nothing_counted

__all__ = ["bucket", "host", "hosts", "nothing_counted", "tables"]

MakeClient = Callable[..., Client]


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Which store it is makes no difference to what is shown."""
    if "bucket" in metafunc.fixturenames:
        only = pytest.mark.parametrize("bucket", ["directory"], indirect=True)
        metafunc.definition.add_marker(only)


@pytest.fixture
def client_of(host: Host) -> MakeClient:
    """A function that logs somebody in, with permissions by codename."""
    for name in ("s3cache", "library"):
        create_permissions(apps.get_app_config(name), verbosity=0)

    def make(
        *permissions: str, name: str = "ann", staff: bool = True, checks: bool = False
    ) -> Client:
        user = User.objects.create_user(name, is_staff=staff)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client(enforce_csrf_checks=checks)
        client.force_login(user)
        return client

    return make


@pytest.fixture
def superuser(host: Host) -> Client:
    """The client of somebody who may do anything."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def viewer(client_of: MakeClient) -> Client:
    """The client of somebody who may look, and nothing else."""
    return client_of("view_statistics")


@pytest.fixture
def keeper(client_of: MakeClient) -> Client:
    """The client of somebody who may look and push the buttons."""
    return client_of("view_statistics", "change_statistics", name="kim")
