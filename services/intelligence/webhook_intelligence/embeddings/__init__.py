"""Vectors for many callers at once: each text asked for once, in batches, kept, by the model in use."""
