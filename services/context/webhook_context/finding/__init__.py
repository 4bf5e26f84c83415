"""Finding contexts: by meaning and words, by links, page by page, and gathered into windows."""
