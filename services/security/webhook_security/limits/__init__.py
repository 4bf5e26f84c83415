"""How much is let in, and from which addresses."""
