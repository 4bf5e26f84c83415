"""What a context is and when it moves: the rules, without any Redis in them."""
