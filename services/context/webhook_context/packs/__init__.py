"""Whole contexts as sealed bytes: alone or many in one segment, named in the cold store, read back."""
