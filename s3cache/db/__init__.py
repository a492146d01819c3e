"""The Django database backend: ``ENGINE = "s3cache.db"``."""
