"""How fast one process works off the queue."""
