"""Objects: named, immutable bytes in a bucket or a directory."""
