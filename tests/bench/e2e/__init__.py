"""From the HTTP edge to a context that can be read, under steady load and after a burst."""
