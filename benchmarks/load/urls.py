"""The pages of the site."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from benchmarks.bucket_models import BucketItem


def front(request: HttpRequest) -> JsonResponse:
    """How many items there are, and the first ten: two reads."""
    items = BucketItem.objects
    return JsonResponse(
        {
            "count": items.count(),
            "first": [
                {"id": item.pk, "name": item.name, "price": str(item.price)}
                for item in items.order_by("pk")[:10]
            ],
        }
    )


def nothing(request: HttpRequest) -> HttpResponse:
    """What the server itself takes."""
    return HttpResponse()


urlpatterns = [path("", front), path("nothing", nothing)]
