"""Fakes that ship: real servers and files in the shape of the real thing, for tests of recipes and of this library."""

from stillhouse.testing.provider import FakeProvider, Step, status

__all__ = ["FakeProvider", "Step", "status"]
