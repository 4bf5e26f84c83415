"""The context store: keeps what is known of each thing, finds it, changes it, forgets it.

It never decides what a context is worth (intelligence does), calls no model, and touches no event stream.
"""
