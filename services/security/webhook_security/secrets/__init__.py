"""The senders' secrets: named, read by reference, what rotations leave of them, when they were used."""
