"""Tests that need the whole site; see ``tests/example/test_site.py``."""
