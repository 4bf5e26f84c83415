"""Which contexts will be needed next: learned from their use, tried, judged, the same in every replica."""
