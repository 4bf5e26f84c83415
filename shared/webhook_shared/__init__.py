"""What every service stands on: gRPC servers and channels, settings, Redis, envelopes, telemetry.

It knows no domain noun and no contract: nothing here may import `webhook.*` or a service.
"""
