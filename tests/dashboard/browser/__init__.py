"""Tests with a real browser; see ``tests/dashboard/test_browser.py``."""
