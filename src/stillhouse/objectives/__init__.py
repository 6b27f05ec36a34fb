"""What a student learns from: one file is one family (Eq. 9-16), every function returns a sum over its mask."""
