"""Forgetting: on request in every place with a certificate, and what has been kept for long enough."""
