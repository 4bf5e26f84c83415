"""Who gets in, and sealed how.

Owns the catalogue of senders, their secrets, verification, the policy on duplicates, the sealing of events
and the API keys. Never touches the event stream, and never lets a secret or a payload out in the clear.
"""
