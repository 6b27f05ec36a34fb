"""Names and a number for each, for as many names as a file has rows."""

from array import array

__all__ = ["Numbers"]

_ROOM = 1024
_LARGE = 0xFFFF


class Numbers:
    """Name -> number of at least 1, in 13 to 20 bytes a name where a dictionary takes more than 100; absent names are 0.

    Open addressing over Python's own 64-bit hashes, so that two of a million names fall together about once in 40 million
    runs: no more often than the content hashes that are kept here. Nothing is taken out again.
    """

    def __init__(self) -> None:
        self._room, self._used = _ROOM, 0
        self._hashes, self._numbers = array("q", bytes(8 * _ROOM)), array("H", bytes(2 * _ROOM))
        self._large: dict[int, int] = {}

    def __len__(self) -> int:
        return self._used

    def __getitem__(self, name: str) -> int:
        hashed = hash(name) or 1
        number = self._numbers[self._place(hashed)]
        return self._large[hashed] if number == _LARGE else number

    def __setitem__(self, name: str, number: int) -> None:
        self._put(hash(name) or 1, number)

    def another(self, name: str) -> int:
        """How often this name was given here, this time included."""
        hashed = hash(name) or 1
        place = self._place(hashed)
        number = self._numbers[place]
        if 0 < number < _LARGE - 1:
            self._numbers[place] = number + 1
            return number + 1
        counted = self._large.get(hashed, number) + 1
        self._put(hashed, counted)
        return counted

    def _put(self, hashed: int, number: int) -> None:
        place = self._place(hashed)
        if number >= _LARGE:
            self._large[hashed] = number
        self._numbers[place] = min(number, _LARGE)
        if not self._hashes[place]:
            self._hashes[place] = hashed
            self._used += 1
            if 4 * self._used > 3 * self._room:
                self._grow()

    def _place(self, hashed: int) -> int:
        """Where a hash lies, or may be put."""
        hashes, room = self._hashes, self._room
        place = hashed % room
        while (there := hashes[place]) and there != hashed:
            place = place + 1 if place + 1 < room else 0
        return place

    def _grow(self) -> None:
        before = zip(self._hashes, self._numbers)
        room = self._room = self._room * 3 // 2 | 1
        hashes = self._hashes = array("q", bytes(8 * room))
        numbers = self._numbers = array("H", bytes(2 * room))
        for hashed, number in before:
            if hashed:
                place = hashed % room
                while hashes[place]:  # `_place`, without a call for each: every name is moved about three times
                    place = place + 1 if place + 1 < room else 0
                hashes[place], numbers[place] = hashed, number
