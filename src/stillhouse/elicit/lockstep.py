"""Many conversations at once: each is written as if it were alone, and what all of them want to ask goes to the
teacher together.

A part is a generator that yields prompts and is sent the text of the answer, or the `Lost` that came instead; what it
returns is its result.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from stillhouse.elicit.asking import OfSeed, asked, complete, in_chunks, keys_of
from stillhouse.records import Lost, Prompt, Seed
from stillhouse.teachers.base import Generates, Outcome

__all__: list[str] = []

Said = str | Lost
Part = Generator[Prompt, Said, Any]


@dataclass(slots=True, eq=False)
class Episode(OfSeed):
    """One part under way: what it asks next, what it was answered, and in the end its result."""

    seed: Seed
    part: Part
    question: Prompt = ()
    outcomes: list[Outcome] = field(default_factory=list)
    over: bool = False
    result: Any = None

    @property
    def keys(self) -> tuple[str, ...]:
        return keys_of(*self.outcomes)

    def go_on(self, said: Said | None) -> None:
        try:
            self.question = next(self.part) if said is None else self.part.send(said)
        except StopIteration as end:
            self.result, self.over = end.value, True


def played(seeds: Iterable[Seed], teacher: Generates, begin: Callable[[Seed], Part]) -> Iterator[Episode]:
    """`sampling.n` episodes for each seed, in the order of the seeds, over when they come; 64 seeds are held at a
    time.
    """
    for chunk in in_chunks(seeds):
        attempts = []
        for attempt in range(teacher.sampling.n):
            # further attempts at one goal differ by their random numbers
            sampling = replace(teacher.sampling, n=1, seed=teacher.sampling.seed + attempt)
            attempts.append([Episode(seed, begin(seed)) for seed in chunk])
            for episode in attempts[-1]:
                episode.go_on(None)
            while going := [each for each in attempts[-1] if not each.over]:
                for episode, slot, outcome in asked(going, teacher, lambda each: each.question, sampling=sampling):
                    episode.outcomes.append(outcome)
                    episode.go_on(complete(episode, slot, outcome))
        for same in zip(*attempts, strict=True):
            yield from same
