"""An admin site of its own kind, and a page that visitors read."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.utils.html import escape

from s3cache.dashboard.admin import StatisticsAdmin
from s3cache.dashboard.model import Statistics
from tests.testapp.models import Product


class QuickAdmin(StatisticsAdmin):
    live_seconds: ClassVar[float] = 2  # each look costs both sides some 50 ms


class Control(admin.AdminSite):
    site_header = "Control"


control = Control(name="control")
control.register(Statistics, QuickAdmin)


def visit(request: HttpRequest) -> HttpResponse:
    products = Product.objects.filter(region="EU").order_by("sku")
    text = escape(f"{products.count()}: {[*map(str, products[:5])]}")
    return HttpResponse(f"<body>{text}</body>")


def icon(request: HttpRequest) -> HttpResponse:
    """What browsers ask for, asked or not."""
    return HttpResponse(status=204)


urlpatterns = [
    path("control/", control.urls),
    # The site that templates of the admin mean by its name.
    path("admin/", admin.site.urls),
    path("visit/", visit),
    path("visit/debugged/", visit),
    path("__debug__/", include("debug_toolbar.urls")),
    path("favicon.ico", icon),
]
