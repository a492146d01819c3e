"""The family of errors."""

from __future__ import annotations

import pickle

import pytest
from django.db import OperationalError

from s3cache import exceptions


@pytest.mark.parametrize("name", sorted(set(exceptions.__all__) - {"S3CacheError"}))
def test_django_callers_catch_them_already(name: str) -> None:
    error = getattr(exceptions, name)
    assert issubclass(error, OperationalError)
    assert issubclass(error, exceptions.S3CacheError)


def test_all_is_complete_and_drawn_in_the_docstring() -> None:
    defined = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and value.__module__ == exceptions.__name__
    }
    assert set(exceptions.__all__) == defined
    assert all(f" {name} " in (exceptions.__doc__ or "") for name in defined)


def test_an_unknown_outcome_survives_a_process_pool() -> None:
    error = exceptions.CommitOutcomeUnknown("lost", position=7, token="abc")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copy), copy.position, copy.token) == ("lost", 7, "abc")
