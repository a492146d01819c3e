"""Django's own tests on the engine, next to plain SQLite.

``python -m tests.conformance`` runs the test suite of the installed Django,
its files unmodified, once on ``django.db.backends.sqlite3`` and once on the
engine, and reports each test that ends differently.
"""
