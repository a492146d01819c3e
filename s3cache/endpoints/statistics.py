"""What was counted, for monitoring systems."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from s3cache.metrics import show
from s3cache.metrics.export import as_json
from s3cache.metrics.figures import SCOPES


@never_cache
@require_safe
def statistics(request: HttpRequest) -> HttpResponse:
    """All figures as JSON; ``?scope=`` process, host or fleet (default)."""
    for scope in SCOPES:
        if request.GET.get("scope", "fleet") == scope:
            source = show.gather(scope)
            return JsonResponse(
                as_json(show.snapshot(source), show.money(source), show.advice(source))
            )
    return HttpResponseBadRequest(f"scope must be one of {', '.join(SCOPES)}")


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The figures of this host for Prometheus; 501 without its client."""
    try:
        from prometheus_client.exposition import choose_encoder

        from s3cache.metrics.prometheus import registry
    except ImportError:
        return HttpResponse(
            "This needs prometheus-client: pip install 'django-s3cache[prometheus]'.",
            status=501,
            content_type="text/plain",
        )
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(registry()), content_type=content_type)
