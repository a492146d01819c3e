"""Are the packages alive, and for the Django that they are tested with?"""

from __future__ import annotations

from importlib.metadata import metadata, version

import django
import pytest

PACKAGES = ["djangorestframework", "django-filter", "django-import-export"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_names_this_django(package: str) -> None:
    """Skipped, with a loud word, where it does not; its tests run anyway."""
    said = metadata(package).get_all("Classifier") or []
    release = ".".join(map(str, django.VERSION[:2]))
    if f"Framework :: Django :: {release}" not in said:
        pytest.skip(
            f"UNSUPPORTED: {package} {version(package)} does not say that it "
            f"supports Django {release}. What it does there is tested all the same."
        )
