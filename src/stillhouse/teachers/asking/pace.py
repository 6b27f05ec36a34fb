"""How many requests may be out at one endpoint at a time, and when to stop trying.

Additive increase, multiplicative decrease: one more slot per 25 successes, a quarter fewer after a "too many requests".
Until the first reply only one request is out, so that a wrong key or model name costs one attempt and no more; until the
first "too many" every success opens a slot, which finds the order of magnitude in a few round trips. Where the server
said "too many" is remembered: one slot beyond it is tried from time to time, and a try in vain costs that one slot.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from stillhouse.errors import TeacherError
from stillhouse.teachers.asking.wire import Clock

__all__ = ["Pace", "later"]

_START = 4
_SUCCESSES = 25  # per slot gained
_HARDER, _HARDEST = 4, 64  # times as many per slot at the remembered ceiling, twice that after each try in vain
_DECREASE = 0.75
_RECENT = 20
_ENOUGH = 10
_NO_SUCCESS_S = 300.0
_PROBE_S, _PROBE_MOST_S = 30.0, 600.0
_JITTER_MOST_S = 30.0


def later(seconds: float, clock: Clock) -> float:
    """A wait that a server asked for, and up to a fifth more (at most 30 s): nobody comes back early, nor all at once."""
    return seconds + min(_JITTER_MOST_S, 0.2 * max(seconds, 1.0)) * clock.jitter()


@dataclass
class Pace:
    """The admission to one endpoint (`url`). All of it runs in one event loop, so there is nothing to lock."""

    url: str
    most: int
    clock: Clock
    max_stall: float = 900.0
    limit: float = 1.0
    out: int = 0
    proven: bool = False
    _successes: int = 0
    _ceiling: float = float("inf")  # as many were out when the server said "too many"
    _harder: int = _HARDER
    _decreased: float = float("-inf")
    _latency: float = 1.0
    _hold: float = float("-inf")  # nobody leaves before this moment
    _recent: deque[bool] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _last_success: float | None = None
    _opened: float | None = None
    _probe_in: float = _PROBE_S
    _probing: bool = False
    _next_probe: float = 0.0
    _waiting: deque["asyncio.Future[None]"] = field(default_factory=deque)

    async def admit(self) -> None:
        """Returns when one more request may leave. Raises TeacherError where the endpoint has been down for too long."""
        while True:
            if self._opened is not None:
                if not self._probing and await self._half_open():
                    self.out += 1
                    return
                if self._probing:
                    await self._turn()
                continue
            wait = self._hold - self.clock.now()
            if wait > 0:
                await self.clock.sleep(later(wait, self.clock))
            elif self.out < max(1, int(self.limit)):
                self.out += 1
                return
            else:
                await self._turn()

    def release(self) -> None:
        """One request less is out; a probe that ends without a verdict leaves its turn to the next."""
        self.out, self._probing = self.out - 1, False
        self._wake()

    def succeeded(self, seconds: float) -> None:
        self._latency += 0.2 * (seconds - self._latency)
        self._last_success = self.clock.now()
        self._opened, self._probing, self._probe_in = None, False, _PROBE_S
        self._recent.append(True)
        if not self.proven:
            self.proven, self.limit = True, float(min(_START, self.most))
        self._successes += 1
        if self.limit < self.most and self._successes >= self._needed():
            if self.limit >= self._ceiling:  # the try beyond the ceiling has held: it lies higher now
                self._ceiling, self._harder = self.limit + 1, _HARDER
            self._successes, self.limit = 0, min(self.most, self.limit + 1)
        self._wake()

    def _needed(self) -> int:
        """How many successes one more slot takes."""
        if self._ceiling == float("inf"):
            return 1
        return _SUCCESSES * (self._harder if self._ceiling - 1 <= self.limit < self._ceiling else 1)

    def limited(self, wait: float | None) -> None:
        """The server said "too many requests", and perhaps for how long."""
        now = self.clock.now()
        if now - self._decreased > self._latency:
            self._decreased, self._successes = now, 0
            if self.limit >= self._ceiling:
                self.limit, self._harder = max(1.0, self._ceiling - 1), min(_HARDEST, 2 * self._harder)
            else:
                self._ceiling, self.limit = self.limit, max(1.0, self.limit * _DECREASE)
        else:  # more refusals of the same crowd: each takes its place along, so that what is left is what the server takes
            self._ceiling = min(self._ceiling, max(2.0, self.out))
            self.limit = max(1.0, min(self.limit, self.out - 1))
        if wait:
            self._hold = max(self._hold, now + wait)
        self._probed_in_vain()
        self._check_silence()
        self._wake()

    def empty(self, wait: float) -> None:
        """The server said that it takes no more requests for so many seconds, before anybody was refused."""
        self._hold = max(self._hold, self.clock.now() + wait)

    def failed(self) -> None:
        """A fault of the endpoint (not of the request)."""
        self._recent.append(False)
        bad = self._recent.count(False)
        if (
            not self._probed_in_vain()
            and self._opened is None
            and len(self._recent) >= _ENOUGH
            and 2 * bad >= len(self._recent)
        ):
            self._open()
        self._check_silence()
        self._wake()

    def _check_silence(self) -> None:
        now = self.clock.now()
        if self._last_success is None:
            self._last_success = now  # counted from the first trouble where nothing ever worked
        if self._opened is None and now - self._last_success > _NO_SUCCESS_S:
            self._open()

    def _open(self) -> None:
        self._opened, self._probe_in = self.clock.now(), _PROBE_S
        self._next_probe = self._opened + self._probe_in

    def _probed_in_vain(self) -> bool:
        """Whether it was the probe that failed; the next one waits twice as long."""
        if not self._probing:
            return False
        self._probing, self._probe_in = False, min(_PROBE_MOST_S, 2 * self._probe_in)
        self._next_probe = self.clock.now() + self._probe_in
        return True

    async def _half_open(self) -> bool:
        """Waits for the next probe's turn; true for the one request that may be it."""
        assert self._opened is not None
        if self._next_probe - self._opened > self.max_stall:
            minutes = (self.clock.now() - self._opened) / 60
            raise TeacherError(
                f"the teacher at {self.url} has failed for {minutes:.0f} minutes; nothing answered so far is lost: "
                "run the same command again when it works"
            )
        wait = self._next_probe - self.clock.now()
        if wait > 0:
            await self.clock.sleep(wait)
            return False
        self._probing = True
        return True

    async def _turn(self) -> None:
        """Waits in line. Who is woken looks again and may have to go back to the end of it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._wake()  # the place that was offered is the next one's
            raise

    def _wake(self) -> None:
        """Wakes as many as there are places for; all where the endpoint is down, for the line is then about its probe."""
        places = len(self._waiting) if self._opened is not None else max(1, int(self.limit)) - self.out
        while self._waiting and places > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                places -= 1
