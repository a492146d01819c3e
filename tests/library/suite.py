"""
Tests as a project would write them, for Django's own test runner.

``tests/db/test_backend.py`` runs them on the engine, in a process of its own.
"""

from __future__ import annotations

from django.db import IntegrityError, connection, transaction
from django.test import TestCase, TransactionTestCase

from tests.library.models import Author, Tag


class RolledBackTests(TestCase):
    """Each test is undone, and the class's data is there for all."""

    @classmethod
    def setUpTestData(cls) -> None:
        Author.objects.create(name="Ann")

    def test_one(self) -> None:
        Tag.objects.create(name="only here")
        Author.objects.update(name="Anna")
        self.assertEqual(Tag.objects.count(), 1)

    def test_other(self) -> None:
        Tag.objects.create(name="only here")
        self.assertEqual(Tag.objects.count(), 1)
        self.assertEqual(Author.objects.get().name, "Ann")

    def test_errors_in_inner_blocks(self) -> None:
        with self.assertRaises(IntegrityError), transaction.atomic():
            Author.objects.create(name="Ann")
        self.assertEqual(Author.objects.count(), 1)

    def test_on_commit(self) -> None:
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            transaction.on_commit(lambda: None)
        self.assertEqual(len(callbacks), 1)

    def test_the_number_of_queries(self) -> None:
        with self.assertNumQueries(1):
            Tag.objects.create(name="a")


class CommittedTests(TransactionTestCase):
    """Each test commits, and the tables are emptied behind it."""

    reset_sequences = True

    def test_one(self) -> None:
        self.assertEqual(Author.objects.create(name="Ann").pk, 1)
        before = connection.position  # type: ignore[attr-defined]
        Tag.objects.create(name="a")
        self.assertEqual(connection.position, before + 1)  # type: ignore[attr-defined]

    def test_other(self) -> None:
        self.assertEqual(Author.objects.create(name="Ann").pk, 1)
        self.assertEqual(Tag.objects.count(), 0)
