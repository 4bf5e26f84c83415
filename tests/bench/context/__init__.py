"""Contexts: how fast they are read and written in each tier, how large they are, how well they are found."""
