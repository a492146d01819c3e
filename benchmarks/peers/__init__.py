"""s3cache next to what else there is."""
