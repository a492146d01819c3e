"""The catalogue's pages."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required, permission_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from example_project.cost import plural
from s3cache.exceptions import TransactionConflict
from s3cache.stores import Request, observe

from . import radar, statistics, worldmap
from .forms import AirportForm, SearchForm
from .models import Airport, Country
from .neighbours import nearest

PAGE_SIZE = 25


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Welcome: a search box, the map, and the countries with most airports."""
    airports = Airport.objects.all()
    return render(
        request,
        "airports/index.html",
        {
            "totals": statistics.totals(airports),
            "map": worldmap.world(airports),
            "countries": statistics.largest(12),
        },
    )


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """Search and filter; a page that does not exist shows the nearest one."""
    form = SearchForm(request.GET)
    paginator = Paginator(form.airports(), PAGE_SIZE)
    page = paginator.get_page(request.GET.get("page"))
    return render(
        request,
        "airports/search.html",
        {
            "form": form,
            "page": page,
            "page_range": paginator.get_elided_page_range(
                page.number, on_each_side=1, on_ends=1
            ),
        },
    )


@require_safe
def detail(request: HttpRequest, code: str) -> HttpResponse:
    """Show an airport and the airports around it."""
    airport = get_object_or_404(
        Airport.objects.select_related("country", "timezone"), pk=code
    )
    neighbours = nearest(airport)
    return render(
        request,
        "airports/detail.html",
        {
            "airport": airport,
            "neighbours": neighbours,
            "radar": radar.draw(neighbours),
        },
    )


@login_required
@permission_required("airports.change_airport", raise_exception=True)
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, code: str) -> HttpResponse:
    """Change an airport; for those who may."""
    airport = get_object_or_404(Airport, pk=code)
    title = str(airport)  # before the form puts into it what was typed
    form = AirportForm(request.POST or None, instance=airport)
    if request.method == "POST" and form.is_valid():
        requests: list[Request] = []
        try:
            with observe(requests.append):
                form.save()
        except TransactionConflict:
            form.add_error(None, form.CHANGED)
        else:
            cost = plural(len(requests), "store request")
            messages.success(request, f"{airport} has been saved, with {cost}.")
            return redirect(airport)
    return render(
        request,
        "airports/edit.html",
        {"airport": airport, "title": title, "form": form},
    )


@require_safe
def countries(request: HttpRequest) -> HttpResponse:
    """Compare the countries."""
    order = request.GET.get("order", "")
    if order not in statistics.COUNTRY_ORDERS:
        order = "airports"
    countries: list[Any] = list(statistics.countries(order))
    return render(
        request,
        "airports/countries.html",
        {
            "countries": countries,
            "most": max((c.airport_count for c in countries), default=0),
            "totals": statistics.totals(Airport.objects.all()),
            "order": order,
            "orders": statistics.COUNTRY_ORDERS,
        },
    )


@require_safe
def country(request: HttpRequest, code: str) -> HttpResponse:
    """Show a country's figures and where its airports are."""
    country = get_object_or_404(Country, pk=code)
    airports = Airport.objects.partition("by_country", country=country)
    return render(
        request,
        "airports/country.html",
        {
            "country": country,
            "totals": statistics.totals(airports),
            "map": worldmap.world(Airport.objects.all(), highlight=country),
            "subdivisions": statistics.breakdown(airports, "subdivision"),
            "zones": statistics.breakdown(airports, "timezone"),
            "highest": airports.order_by("-elevation", "name")[:5],
        },
    )
