"""What a delivery says: where its facts stand, its body read strictly, secrets in it masked."""
