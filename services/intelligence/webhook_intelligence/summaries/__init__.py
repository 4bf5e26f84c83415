"""Summaries, made here or by a chat model: told in sentences, checked for facts, with their sources."""
