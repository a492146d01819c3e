"""The engine on a directory that answers as late as a bucket does."""
