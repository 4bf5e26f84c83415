"""The truth in Redis: contexts and where they lie, sealed, every write one script in one slot."""
