"""The fixtures do what they say in a project of their own."""

from __future__ import annotations

import os

import pytest
from django.db import connection

from s3cache import pytest_plugin
from s3cache.testing import other_host
from tests.docs.pages import ROOT, page

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["s3cache", "shop"]
STORAGES = {
    "s3cache": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": "store-that-no-test-touches"},
    },
}
DATABASES = {
    "default": {
        "ENGINE": "s3cache.db",
        "NAME": "replica.sqlite3",
        "OPTIONS": {"storage": "s3cache", "max_age": 3600},
    },
}
CACHES = {"default": {"BACKEND": "s3cache.caches.MemoryCache"}}
"""

MODELS = """
from django.db import models
from s3cache.models import S3Model

class Product(S3Model):
    name = models.CharField(max_length=40)
"""

TESTS = """
import pytest
from shop.models import Product

pytestmark = pytest.mark.django_db(transaction=True)


def test_reads(s3cache_reads):
    Product.objects.create(name="Kettle")
    list(Product.objects.all())
    with s3cache_reads() as reads:
        list(Product.objects.all())
        Product.objects.filter(name="x").count()
    assert reads.events == ["hit", "miss"]
    assert not reads.are_cached
    assert reads.tables == {"shop_product"}


def test_requests(s3cache_requests):
    with s3cache_requests() as spent:
        Product.objects.create(name="Kettle")
    assert spent == {"PUT": 1}
    assert spent.list[0].status == 200
    with s3cache_requests() as spent:
        Product.objects.count()
    assert spent == {}


def test_another_host(s3cache_other_host):
    with s3cache_other_host() as there:
        Product.objects.create(name="Kettle")
    assert not Product.objects.exists()  # max_age is not over
    assert Product.objects.fresh().get().name == "Kettle"
    Product.objects.update(name="Toaster")
    with s3cache_other_host():
        assert Product.objects.get().name == "Toaster"
    assert there.connection is None


@pytest.mark.django_db
def test_in_a_transaction(s3cache_other_host, s3cache_reads):
    with s3cache_reads() as reads:
        list(Product.objects.all())
    assert reads.events == ["bypass"]
    with pytest.raises(RuntimeError, match="open transaction"), s3cache_other_host():
        pass
"""


def test_a_project_s_tests(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini(
        "[pytest]\nDJANGO_SETTINGS_MODULE = shop_settings\nfilterwarnings = error\n"
    )
    pytester.makepyfile(shop_settings=SETTINGS, test_shop=TESTS)
    pytester.mkpydir("shop").joinpath("models.py").write_text(MODELS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(pytester.path)]))
    for name in ("COVERAGE_PROCESS_CONFIG", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.delenv(name, raising=False)
    # Also where an entry point has it loaded already.
    done = pytester.runpytest_subprocess(
        "-p", "s3cache.pytest_plugin", "-p", "no:randomly", "-q"
    )
    done.assert_outcomes(passed=4)
    assert not (pytester.path / "store-that-no-test-touches").exists()


def test_the_plugin_imports_nothing_of_django(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "s3cache.pytest_plugin" in sys.modules
            assert "django" not in sys.modules
            assert "s3cache.testing" not in sys.modules
        """
    )
    done = pytester.runpytest_subprocess(
        "-p", "s3cache.pytest_plugin", "-p", "no:django", "-q"
    )
    done.assert_outcomes(passed=1)


def test_all_of_it_is_documented() -> None:
    text = page("how-to/testing.md").text
    for name in (*pytest_plugin.__all__, "watch_reads", "count_requests", "other_host"):
        assert name in text
    entry = "[project.entry-points.pytest11]"
    assert entry in (ROOT / "pyproject.toml").read_text()


def test_another_host_is_for_tests_alone() -> None:
    assert connection.vendor == "sqlite"
    with pytest.raises(RuntimeError, match="is for test databases"), other_host():
        pass
