"""The HTTP edge: connections, requests, and what becomes of each."""
