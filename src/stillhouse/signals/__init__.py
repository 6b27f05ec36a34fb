"""Teacher signals on disk: what a teacher believes at each token, kept once in few bytes, checked whenever it is read."""
