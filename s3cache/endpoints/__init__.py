"""Views for a project's URLconf: ``include("s3cache.endpoints.urls")``."""
