"""`python -m webhook_consumer`: one process of the consumer."""

from webhook_shared import process

from webhook_consumer.settings import ConsumerSettings
from webhook_consumer.wiring import running

if __name__ == "__main__":
    process.run("consumer", ConsumerSettings, running)
