"""Run the gateway: `python -m webhook_gateway`."""

from webhook_shared import process

from webhook_gateway.settings import GatewaySettings
from webhook_gateway.wiring import running

if __name__ == "__main__":
    process.run("gateway", GatewaySettings, running)
