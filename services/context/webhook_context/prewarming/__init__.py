"""Contexts that are likely to be used next: foreseen, brought near within a budget, and back again."""
