"""`still check --deep`: what can only be known with the models loaded, said before anything is trained."""
