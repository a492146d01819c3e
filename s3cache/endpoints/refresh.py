"""Having a host see now what others have committed."""

from __future__ import annotations

from typing import cast

from django.apps import apps
from django.db import DatabaseError, connections
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from s3cache import conf
from s3cache.db.base import DatabaseWrapper


@never_cache
@require_POST
def refresh(request: HttpRequest, label: str) -> JsonResponse:
    """Ask the store now, and tell how many rows a model has.

    For users who may view the model. Status 403 for others, 404 for a model
    that there is not or that lives in no bucket, 503 if the store does not
    answer. One GET, and one for each entry that is new.
    """
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return _refusal(403, "This needs a user.")
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError):
        return _refusal(404, f"There is no model {label!r}.")
    options = model._meta
    if not user.has_perm(f"{options.app_label}.view_{options.model_name}"):
        return _refusal(403, "This needs the permission to view the model.")
    rows = model._base_manager.all()
    if not conf.lives_in_bucket(rows.db):
        return _refusal(404, f"{options.label} lives in no bucket.")
    connection = cast(DatabaseWrapper, connections[rows.db])
    try:
        connection.catch_up()
        return JsonResponse(
            {
                "model": options.label,
                "count": rows.count(),
                "position": connection.position,
            }
        )
    except DatabaseError as error:
        return _refusal(503, type(error).__name__)


def _refusal(status: int, message: str) -> JsonResponse:
    return JsonResponse({"error": message}, status=status)
