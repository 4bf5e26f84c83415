"""What models cost: tokens, prices, budgets, and the ledger of what was spent."""
