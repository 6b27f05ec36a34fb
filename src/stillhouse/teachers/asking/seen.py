"""Which keys came before, in memory that does not grow."""

__all__ = ["Seen"]

_BITS = 26  # 8 MB
_PLACES = (0, _BITS, 2 * _BITS)


class Seen:
    """A Bloom filter of 64 million bits with three places to a key: of a million keys it takes about 80 for seen."""

    def __init__(self) -> None:
        self._bits: bytearray | None = None  # most teachers of a run are only named, never asked

    def again(self, key: str) -> bool:
        """Whether this key (hexadecimal) came before."""
        if self._bits is None:
            self._bits = bytearray(1 << (_BITS - 3))
        bits, number, before = self._bits, int(key[:20], 16), True
        for shift in _PLACES:
            place = number >> shift & (1 << _BITS) - 1
            byte, bit = place >> 3, 1 << (place & 7)
            if not bits[byte] & bit:
                bits[byte] |= bit
                before = False
        return before
