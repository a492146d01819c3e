"""Django's sessions in each backend."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from s3cache.caches import s3
from s3cache.stores import DirectoryStore
from tests.caches.conftest import Use, backend


@pytest.mark.django_db
@pytest.mark.parametrize("engine", ["cache", "cached_db"])
@pytest.mark.parametrize("kind", ["MemoryCache", "FileSystemCache", "S3Cache", "tiers"])
def test_sessions(
    use: Use,
    directory_store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    engine: str,
) -> None:
    monkeypatch.setattr(s3, "store_for", lambda alias: directory_store)
    options: dict[str, Any] = {"storage": "any"} if kind == "S3Cache" else {}
    if kind == "tiers":
        use(
            default=backend("TieredCache", tiers=["near", "far"]),
            near=backend("MemoryCache"),
            far=backend("FileSystemCache"),
        )
    else:
        use(default=backend(kind, **options))
    store = import_module(f"django.contrib.sessions.backends.{engine}").SessionStore
    session = store()
    session["cart"] = [1, 2]
    session.save()
    again = store(session.session_key)
    assert again["cart"] == [1, 2]
    again["cart"].append(3)
    again.save()
    assert store(session.session_key)["cart"] == [1, 2, 3]
    again.flush()
    assert not store().exists(session.session_key)
