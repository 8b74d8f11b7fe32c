"""Which plan is best: candidates, search and the inverse questions. Pure functions over an engine's budgets."""
