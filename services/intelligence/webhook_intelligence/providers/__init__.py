"""Who makes vectors and answers: on this machine or behind an API, and how the API is called."""
