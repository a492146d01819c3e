"""Shows the statistics on the project's own admin site."""

from __future__ import annotations

from django.contrib import admin

from s3cache.dashboard.admin import StatisticsAdmin
from s3cache.dashboard.model import Statistics

admin.site.register(Statistics, StatisticsAdmin)
