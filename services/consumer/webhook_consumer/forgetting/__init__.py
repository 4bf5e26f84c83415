"""Forgetting events wherever they wait, were given up or are kept."""
