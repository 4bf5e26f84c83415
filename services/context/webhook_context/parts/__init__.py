"""What one process consists of, put together from its settings: a function for each area, for `wiring`."""
