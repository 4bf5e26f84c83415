"""Compression dictionaries: trained on scrubbed samples, kept by content, copied beside what needs them."""
