"""What has no table is in nobody's way."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from django.db import connection

from s3cache.dashboard.model import Statistics


@pytest.mark.parametrize("options", [{}, {"use_base_manager": True}])
def test_dumpdata_finds_no_rows(db: None, options: dict[str, bool]) -> None:
    assert Statistics._meta.db_table not in connection.introspection.table_names()
    out = io.StringIO()
    call_command("dumpdata", stdout=out, **options)
    assert "s3cache.statistics" not in out.getvalue()
