"""What understanding costs, and what it is worth."""
