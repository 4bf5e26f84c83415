"""Runs and operates Webhook System: the dev runner, `webhook-cli`, the demo.

Owns how a system is started, looked at and tried out from a terminal. Never does a service's work, and
no service imports it.
"""
