"""The pages of the site."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from benchmarks.bucket_models import BucketItem
from benchmarks.load import objects


def shown(item: BucketItem) -> dict[str, Any]:
    """What the page says of an item."""
    return {"id": item.pk, "name": item.name, "price": str(item.price)}


def front(request: HttpRequest) -> JsonResponse:
    """How many items there are, and the first ten: two reads."""
    items = BucketItem.objects
    return JsonResponse(
        {
            "count": items.count(),
            "first": [shown(item) for item in items.order_by("pk")[:10]],
        }
    )


def from_objects(request: HttpRequest) -> JsonResponse:
    """The same, from objects in the bucket."""
    return JsonResponse(objects.read())


def nothing(request: HttpRequest) -> HttpResponse:
    """What the server itself takes."""
    return HttpResponse()


urlpatterns = [
    path("", front),
    path("objects", from_objects),
    path("nothing", nothing),
]
