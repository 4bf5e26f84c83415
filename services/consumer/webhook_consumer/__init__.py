"""The consumer: works off the event queue, once each, and turns what it finds into contexts.

It owns reading the streams, retries, dead letters and the normalising of events. It never decides what a
context is worth (intelligence does), and never stores one (the context store does).
"""
