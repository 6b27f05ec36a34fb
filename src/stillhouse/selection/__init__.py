"""Selectors: which records a student is taught from, with a reason for each one dropped."""
