"""`python -m webhook_intelligence`."""

from webhook_shared import process

from webhook_intelligence.settings import IntelligenceSettings
from webhook_intelligence.wiring import running

process.run("intelligence", IntelligenceSettings, running)
