"""The sources that are served: what registries say of them, followed, and joined with the catalogue."""
