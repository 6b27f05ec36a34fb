"""The table of the survey's rows: which are done, by what, held by which test."""
