"""Small packs that share objects of the cold store, each under its own key; their layout is in `packs`."""
