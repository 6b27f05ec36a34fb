"""Equation 2: a student learns from records by a weighted sum of objectives."""
