"""The judge: believes or refuses a delivery, names and seals it, and hears refused ones again."""
