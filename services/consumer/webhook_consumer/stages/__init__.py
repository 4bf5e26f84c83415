"""What is done with an entry: stage one, from event to contexts, and stage two, which understands them."""
