"""The fake provider in a process of its own, so that its work is not the client's. Ends when its input does.

python benchmarks/asking/server.py [LATENCY_S] [CEILING]
"""

import sys

from stillhouse.testing.provider import FakeProvider, Step, status


class Limited(FakeProvider):
    """Takes `latency` seconds over an answer; more than `ceiling` at once are told "too many", and nothing else."""

    def __init__(self, latency: float, ceiling: int) -> None:
        super().__init__(
            "The answer is four, because two and two are four, as everybody knows who has counted apples. " * 3
        )
        self.latency, self.ceiling, self.refused = latency, ceiling, 0

    def step(self, prompt: str) -> Step:
        if self.ceiling and self.out > self.ceiling:
            self.refused += 1
            return status(429)
        return Step(delay=self.latency)


def main() -> None:
    latency, ceiling = (float(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 2 else (0.0, 0)
    with Limited(latency, ceiling) as provider:
        print(provider.url, flush=True)
        sys.stdin.read()
        print(f"{len(provider.requests)} {provider.refused} {provider.most_out}", flush=True)


if __name__ == "__main__":
    main()
