"""What was given up: to be read, told apart, put back into the queue, and dropped in the end."""
