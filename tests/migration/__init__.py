"""Moves of a system between SQS and Redis, under load."""
