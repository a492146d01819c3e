"""A catalogue of the world's airports that needs a bucket and nothing else."""
