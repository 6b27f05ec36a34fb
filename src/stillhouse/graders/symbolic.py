"""Symbolic equality in a process that can be killed: `9^{9^{9^9}}` never returns, and signals do not work in threads.

The parent (`Verifier`) sends one pair per line to a worker (`python -m stillhouse.graders.symbolic`) and kills it
when it does not answer in time. math-verify says "equal" reliably, but "not equal" too often ("twelve" against 12): a
difference counts only when a second, numeric comparison agrees.
"""

import json
import select
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, Literal

__all__: list[str] = []

Verdict = Literal[
    "equal", "different", "unconfirmed", "unparsable", "unparsable_reference", "timed_out", "verifier_failed"
]


class Verifier:
    """One worker process, started when first needed, replaced when it had to be killed."""

    def __init__(self, *, seconds: float = 5.0, memory_mb: int = 1024) -> None:
        self.seconds = seconds
        self.memory_mb = memory_mb
        self._process: subprocess.Popen[str] | None = None

    def verdict(self, response: str, reference: str) -> Verdict:
        """How two mathematical texts (with or without dollar signs) relate."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([response, reference]) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            self.close()
            return "verifier_failed"
        ready, _, _ = select.select([process.stdout], [], [], self.seconds)
        line = process.stdout.readline() if ready else ""
        if not line:  # too slow, or it died (of its memory limit, or of something it could not read)
            self.close()
            return "verifier_failed" if ready else "timed_out"
        verdict: Verdict = json.loads(line)
        return verdict

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stillhouse.graders.symbolic", str(self.memory_mb)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self._process.stdout is not None
            self._process.stdout.readline()  # importing sympy is not part of the time for an answer
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _compare(response: str, reference: str) -> Verdict:
    from math_verify import parse, verify

    parsed = [_parsed(parse, text) for text in (response, reference)]
    if not parsed[1]:
        return "unparsable_reference"
    if not parsed[0]:
        return "unparsable"
    if verify(parsed[1], parsed[0], timeout_seconds=None):
        return "equal"
    return "different" if _numerically_different(parsed[0][0], parsed[1][0]) else "unconfirmed"


def _parsed(parse: Any, text: str) -> list[Any]:
    text = text.strip()
    if "$" not in text and "\\boxed" not in text:
        text = f"${text}$"
    found = parse(text, parsing_timeout=None)
    return [item for item in found if not isinstance(item, str)]


def _numerically_different(a: Any, b: Any) -> bool:
    """Whether two expressions take different values: the second opinion on "not equal"."""
    import sympy

    a, b = (side.rhs if isinstance(side, sympy.Eq) and side.lhs.is_Symbol else side for side in (a, b))
    if isinstance(a, sympy.Tuple | sympy.FiniteSet) and isinstance(b, sympy.Tuple | sympy.FiniteSet):
        return len(a) != len(b) or _values(a) != _values(b)
    several = (sympy.Tuple, sympy.Set, sympy.And, sympy.Or)
    if isinstance(a, sympy.Expr) != isinstance(b, sympy.Expr):
        many = a if isinstance(a, several) else b  # one value against several, unless they are one after all
        return isinstance(many, several) and not (isinstance(many, sympy.FiniteSet) and len(many) == 1)
    if not isinstance(a, sympy.Expr):
        return False
    names = sorted(a.free_symbols | b.free_symbols, key=str)
    point = {name: sympy.Rational(17 + 6 * i, 7) for i, name in enumerate(names)}
    values = [sympy.N(side.subs(point), 30) for side in (a, b)]
    if not all(value.is_number and value.is_finite for value in values):
        return False
    return bool(abs(values[0] - values[1]) > sympy.Float("1e-15") * (1 + abs(values[1])))


def _values(items: Iterable[Any]) -> list[str]:
    import sympy

    return [str(sympy.N(item, 15)) for item in items]


def _serve(memory_mb: int) -> None:
    import logging
    import resource

    import math_verify  # noqa: F401  imported before the limit and before the first question

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    print("ready", flush=True)
    for line in sys.stdin:
        response, reference = json.loads(line)
        print(json.dumps(_compare(response, reference)), flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
