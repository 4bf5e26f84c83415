"""Calls between services: servers, channels, who is calling, and certificates."""
