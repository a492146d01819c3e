"""What the response cache refuses before there is a request."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from s3cache.middleware import ResponseCacheMiddleware, cache_response


@pytest.mark.parametrize(
    "order",
    [
        ["django.contrib.sessions.middleware.SessionMiddleware", "cache"],
        ["django.middleware.locale.LocaleMiddleware", "cache"],
        ["cache", "s3cache.middleware.ReadYourWritesMiddleware"],
        ["cache", "s3cache.middleware.CacheStatusMiddleware"],
        ["cache", "s3cache.middleware.CacheControlMiddleware"],
    ],
)
def test_a_wrong_place_is_refused(order: list[str], settings: Any) -> None:
    mine = "s3cache.middleware.ResponseCacheMiddleware"
    settings.MIDDLEWARE = [mine if one == "cache" else one for one in order]
    with pytest.raises(ImproperlyConfigured, match="the order must be"):
        ResponseCacheMiddleware(lambda request: None)


@pytest.mark.parametrize("ttl", [0, -1, True, "60"])
def test_a_ttl_that_is_none_is_refused(ttl: Any) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        cache_response(ttl=ttl)
