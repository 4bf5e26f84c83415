"""Where accepted events are kept: their stream, SQS, or the spool until one of them is back."""
