"""The front page is warm before a visitor comes."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from s3cache.warming.registry import query_named


@pytest.mark.django_db
def test_what_is_warmed_is_what_the_front_page_reads() -> None:
    with CaptureQueriesContext(connection) as warmed:
        for read in query_named("front page").reads():
            read.perform()
    with CaptureQueriesContext(connection) as shown:
        assert Client().get("/").status_code == 200
    assert len(warmed) == 3
    statements = [one["sql"] for one in shown.captured_queries]
    assert sorted(one["sql"] for one in warmed.captured_queries) == sorted(
        sql for sql in statements if "airports_" in sql
    )
