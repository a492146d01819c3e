"""The keeper: writes packs and catalogs, and trims the log.

``keep`` is one round of it, free of I/O like the log's protocols. Everything
that it does may be done twice, stopped in the middle, or come late.
"""
