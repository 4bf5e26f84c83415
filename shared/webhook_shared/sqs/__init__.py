"""SQS, the other event queue: its client, its messages, and how it compares with Redis."""
