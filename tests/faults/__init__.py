"""Bad days: what networks, stores, disks and machines do to s3cache."""
