"""The gateway: takes webhooks in over HTTP (and events of our own producers over gRPC), durably.

Owns the HTTP edge, its limits, the answers per sender and the publishing into the event stream. Never
sees a secret or a key, and never parses a payload: security judges, the gateway carries.
"""
