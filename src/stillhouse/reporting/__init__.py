"""The report of a run and its cards in pieces: what is read, what is said, what is drawn. All of it from the run folder."""
