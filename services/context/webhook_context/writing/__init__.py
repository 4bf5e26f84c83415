"""Appends, changes and deletions: what a call sets in motion, and what is refused."""
