"""Deliveries that come again: what makes two of them the same one, and which need not be sealed."""
