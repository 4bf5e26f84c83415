"""Sealed bytes and the keys that seal them: master keys wrap those of tenants, these those of the data."""
