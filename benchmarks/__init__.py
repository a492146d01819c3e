"""The benchmarks: s3cache next to Django on a SQLite file, in one run.

``python -m benchmarks --help``. What is compared is measured in turn, round
by round, so that a busy machine is unfair to nobody: ratios of one run can be
compared with those of another, milliseconds cannot.
"""
