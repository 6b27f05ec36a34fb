"""A teacher that is looked up and never asked: what a run would ask for, and how much of it is stored."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from stillhouse.errors import StillhouseError
from stillhouse.teachers.asking.asked import Asked
from stillhouse.teachers.base import Answer, Failure, Outcome, Request

__all__ = ["Pilot", "Tally", "TooMany"]

_WINDOW = 256


class TooMany(StillhouseError):
    """An elicitor that goes on asking although nobody answers."""


@dataclass
class Tally:
    """What was asked for: requests by key that are not stored, and the answers that are.

    `limit` bounds the requests; beyond it TooMany is raised.
    """

    limit: int = 100_000
    missing: dict[str, Request] = field(default_factory=dict)
    stored: dict[str, tuple[Request, Answer]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)  # stored too: as failures that would only repeat themselves
    requests: int = 0

    def count(self) -> None:
        self.requests += 1
        if self.requests > self.limit:
            raise TooMany(f"more than {self.limit} requests were asked for and none was answered")


class Pilot(Asked):
    """Gives what the store has and `not_asked` for the rest; a teacher whose weights lie here is not even named, because
    that would read them.
    """

    @property
    def tally(self) -> Tally:
        assert self._calls.pilot is not None
        return self._calls.pilot

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        """In the order of `requests`."""
        source = iter(requests)
        while chunk := list(islice(source, _WINDOW)):
            slots = [self._slot(request) for request in chunk]
            for _ in slots:
                self.tally.count()
            while open_slots := [slot for slot in slots if slot.result is None]:
                known = self._known(open_slots)
                for slot in open_slots:
                    found = known.get(slot.key)
                    if found is None:
                        self.tally.missing[slot.key] = slot.wanted
                        slot.result = Failure("not_asked", "an estimate asks nobody", "not_attempted")
                        continue
                    if isinstance(found, Answer):
                        self.tally.stored[slot.key] = slot.wanted, found
                    else:
                        self.tally.failed.add(slot.key)
                    self._settle(slot, found)
            for slot in slots:
                yield self._outcome(slot)

    def _known(self, slots: list[Any]) -> dict[str, Answer | Failure]:
        if getattr(self.backend, "chunk", 0):
            return {}
        for slot in slots:
            self._named(slot)
        return self._looked_up({slot.key: slot.wanted for slot in slots})
