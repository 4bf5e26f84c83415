"""What operators ask and change: sources, secrets and their rotation, evidence, API keys."""
