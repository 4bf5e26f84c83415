"""Webhooks per second at the door, beside a plain receiver."""
