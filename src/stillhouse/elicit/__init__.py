"""Elicitors: what is asked of a teacher, one file per kind of knowledge (Eq. 1, 3-8)."""
