"""What others built, as their documentation says to use it; each is run by an interpreter of its own."""
