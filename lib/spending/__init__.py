"""What agents use and what it costs: the ledger, budgets that hold, and forecasts."""
