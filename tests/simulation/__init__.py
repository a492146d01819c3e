"""The protocol of ``s3cache.log`` on bad days, each of them reproducible.

``README.md`` says what is simulated, what is checked and how to read a trace.
"""
