"""Teachers: one file, one backend, one class `Teacher`; and `calls.py`, through which all of them are asked."""
