"""What others learn of a write, and we of theirs: the streams, and whoever follows them."""
