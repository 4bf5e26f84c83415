"""Processed events, kept sealed for a while: to be found, replayed and forgotten."""
