"""Understanding of text: vectors, summaries, importance, entities.

Owns the models and the providers behind them, their cache and their cost. Never stores a context, and
never lets the text of a webhook act as an instruction.
"""
