"""The catalogue for programs: airports as JSON, in pages."""

from __future__ import annotations

from django_filters import rest_framework as filters
from rest_framework import generics, pagination, serializers
from rest_framework.filters import OrderingFilter
from rest_framework.renderers import JSONRenderer

from s3cache.conditional import depends_on

from .models import Airport, Country, TimeZone


class AirportSerializer(serializers.ModelSerializer):  # type: ignore[misc]
    """What is known of an airport."""

    country_name = serializers.CharField(source="country.name", read_only=True)

    class Meta:
        model = Airport
        fields = (
            "code",
            "iata",
            "name",
            "city",
            "subdivision",
            "country",
            "country_name",
            "timezone",
            "elevation",
            "latitude",
            "longitude",
        )


class Pages(pagination.PageNumberPagination):  # type: ignore[misc]
    """25 airports, or up to 100 with ``?size=``."""

    page_size = 25
    page_size_query_param = "size"
    max_page_size = 100


class AirportFilter(filters.FilterSet):  # type: ignore[misc]
    """``?country=DE&name=berg&least=1000``; elevations in feet."""

    name = filters.CharFilter(lookup_expr="icontains")
    least = filters.NumberFilter(field_name="elevation", lookup_expr="gte")

    class Meta:
        model = Airport
        fields = ("country", "timezone", "iata")


class AirportList(generics.ListAPIView):  # type: ignore[misc]
    """Airports in pages."""

    queryset = Airport.objects.select_related("country").order_by("name", "code")
    serializer_class = AirportSerializer
    pagination_class = Pages
    filter_backends = (filters.DjangoFilterBackend, OrderingFilter)
    filterset_class = AirportFilter
    ordering_fields = ("name", "elevation")
    renderer_classes = (JSONRenderer,)
    # It is the same for everybody: who asks is not looked at, and so caches
    # may keep it for all.
    authentication_classes = ()
    permission_classes = ()


#: Who has the newest page is told so without a query.
airports = depends_on(Airport, Country, TimeZone)(AirportList.as_view())
