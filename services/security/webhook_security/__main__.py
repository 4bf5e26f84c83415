"""Runs the service: `python -m webhook_security`."""

from webhook_shared import process

from webhook_security.settings import SecuritySettings
from webhook_security.wiring import running

process.run("security", SecuritySettings, running)
