"""Fakes that ship: real servers and files in the shape of the real thing, for tests of recipes and of this library."""
