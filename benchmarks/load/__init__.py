"""A site under load: with s3cache's caches, and without."""
