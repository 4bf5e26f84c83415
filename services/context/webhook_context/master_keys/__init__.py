"""From one master key to the next, in the background."""
