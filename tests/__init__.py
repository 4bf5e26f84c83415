"""What crosses services: the whole path, hostile input, faults, the ledger, the house rules."""
