"""The report of a run and its cards, in pieces: what is read, what is said, what is drawn. Everything is read from the run folder."""
