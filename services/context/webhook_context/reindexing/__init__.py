"""From one embedding model to the next while searches go on."""
