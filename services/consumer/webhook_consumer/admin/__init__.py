"""What operators ask of the queue, and what they are told."""
