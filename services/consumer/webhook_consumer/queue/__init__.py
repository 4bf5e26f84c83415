"""The queue that is worked off: what workers ask of it, and how it is kept in Redis."""
