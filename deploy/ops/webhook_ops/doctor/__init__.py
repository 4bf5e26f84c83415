"""Examines a live system from outside: what it does with hostile requests, and how its parts are set.

Nothing here is accepted or stored by a system that is well: every request is one that must be refused.
"""
