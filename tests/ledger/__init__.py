"""Kills everything under load and accounts for each acknowledged event.

Owns the load, the killing and the books. Never trusts the system's own counters: what was acknowledged is
what a sender was told, what is kept is what a reader finds.
"""
