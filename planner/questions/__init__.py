"""What users ask beyond one plan: limits, gates, comparisons, grids, surveys, explanations."""
