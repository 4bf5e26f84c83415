"""Contexts between hot, warm and cold: one move step by step, and what sets it off."""
