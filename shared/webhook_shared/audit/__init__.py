"""The audit chain: what administrators do and what is admitted, on record, so that a change shows."""
