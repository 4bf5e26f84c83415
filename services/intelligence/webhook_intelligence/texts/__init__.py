"""Texts of strangers, read: secrets out, sentences, words and names found, what may be shown of them."""
