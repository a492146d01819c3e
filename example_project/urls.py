"""The site's addresses: the catalogue, login, the normal admin, and health."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path

admin.site.site_header = admin.site.site_title = "Airport Atlas"
admin.site.index_title = "Administration"

urlpatterns = [
    path("", include("example_project.airports.urls")),
    path("login/", auth_views.LoginView.as_view(), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("s3cache/", include("s3cache.endpoints.urls")),
]
