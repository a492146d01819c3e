"""Warming as a task of Django's task framework, where there is one."""

from __future__ import annotations

from typing import Any

import django
import pytest

from tests.engine import Host
from tests.results.seen import HIT, directory, events
from tests.testapp.models import Gear

pytestmark = [
    directory,
    pytest.mark.skipif(django.VERSION < (6, 0), reason="Django has no tasks yet"),
]


def test_a_task_warms_and_says_how_much(host: Host, settings: Any) -> None:
    settings.TASKS = {
        "default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}
    }
    from s3cache.warming.tasks import warm

    Gear.objects.create(name="cog")
    result = warm.enqueue(["testapp.Gear", "heavy gears"])
    assert result.return_value == {"reads": 6, "stored": 6, "failed": 0}
    assert events(Gear.objects.count) == HIT
    assert warm.enqueue().return_value == {"reads": 2, "stored": 0, "failed": 0}
    assert warm.enqueue(["testapp.Gear"], force_refresh=True).return_value == {
        "reads": 4,
        "stored": 4,
        "failed": 0,
    }
