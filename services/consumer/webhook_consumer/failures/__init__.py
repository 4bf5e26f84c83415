"""What becomes of a failure: whose it is, when it is tried again, and when a tool is left alone."""
