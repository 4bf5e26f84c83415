"""Redis against the cold store: what Redis has lost comes back, what nobody needs goes."""
