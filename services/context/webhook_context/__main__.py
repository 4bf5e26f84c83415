"""`python -m webhook_context`: one process of the context store."""

from webhook_shared import process

from webhook_context.settings import ContextSettings
from webhook_context.wiring import running

if __name__ == "__main__":
    process.run("context", ContextSettings, running)
