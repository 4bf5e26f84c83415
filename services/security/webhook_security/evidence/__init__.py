"""What is kept for later: what was refused, and what is on record in the audit chain."""
