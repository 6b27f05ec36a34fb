"""Three tries at a problem, each told more than the one before: `self_knowledge.reflected` (R65)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from stillhouse.elicit.asking import OfSeed, Unparsed, born, in_chunks, instructed, keys_of, read_each, seeds_of
from stillhouse.elicit.labeling import REASON
from stillhouse.elicit.parsing import Rationale, rationale
from stillhouse.graders import Grader
from stillhouse.graders.final import MARKERS
from stillhouse.records import Example, Lost, Prompt, Seed
from stillhouse.teachers.base import Generates, Outcome

__all__: list[str] = []

FAILED = (
    "Here is an attempt whose answer is wrong:\n=====\n{attempt}\n=====\n{known}Behind [Reflection], say where it goes astray "
    "and why. Then, behind [Solution], solve the problem from the beginning, as if nobody had tried before: "
)
KNOWN = "The right answer is {reference}.\n"


def reflected(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    grader: Grader,
    instruction: str = REASON,
    final: Sequence[str] = MARKERS,
) -> Iterator[Example | Lost]:
    """Reasoning that ends in the right answer, in at most three tries.

    First the problem alone; where that fails, with the wrong attempt to reflect on; where that fails too, with the right
    answer shown beside the attempt. Of a later try only what stands behind [Solution] is learnt, under the seed's own
    prompt. The column `tries` says which one it was. Lost after the third: "wrong" and the parser's codes ("sections" where
    the mark is missing), "no_reference". Sampled `n` times, each sample has its own three tries. Source: R65 (SciGLM).
    """

    def first(text: str) -> Rationale | Unparsed:
        return rationale(text, final=final)

    def later(text: str) -> Rationale | Unparsed:
        _, mark, solution = text.partition("[Solution]")
        if not mark or "[Solution]" in solution:
            return Unparsed("sections", text[-80:])
        return rationale(solution.lstrip(" :\n*"), final=final)

    for chunk in in_chunks(seeds_of(seeds)):
        yield from (Lost(seed.id, "no_reference") for seed in chunk if seed.reference is None)
        failed = [_Try(seed) for seed in chunk if seed.reference is not None]
        for number in (1, 2, 3):
            trying, failed = failed, []
            sampling = teacher.sampling if number == 1 else replace(teacher.sampling, n=1)
            read = first if number == 1 else later
            tries = read_each(trying, teacher, _told(number, instruction), read, sampling=sampling)
            for one, slot, outcome, value in tries:
                now = replace(one, slot=slot if number == 1 else one.slot)
                if isinstance(value, Rationale) and grader([value.text], [now.reference])[0].value == 1:
                    columns = {**now.seed.columns, "tries": number}
                    yield born(replace(now.seed, columns=columns), value.text, outcome, teacher.name)
                elif number < 3:
                    failed.append(replace(now, attempt=value.text if isinstance(value, Rationale) else _raw(outcome)))
                elif isinstance(value, Lost):
                    yield replace(value, slot=now.slot)
                else:
                    yield Lost(now.id, "wrong", slot=now.slot, keys=keys_of(outcome))


def _told(number: int, instruction: str) -> "Callable[[_Try], Prompt]":
    def prompt_of(one: _Try) -> Prompt:
        if number == 1:
            return instructed(one.seed.prompt, instruction)
        known = KNOWN.format(reference=one.reference) if number == 3 else ""
        return instructed(
            one.seed.prompt, FAILED.format(attempt=one.attempt or "(no answer)", known=known) + instruction
        )

    return prompt_of


def _raw(outcome: Outcome) -> str:
    """The text of an answer that could not be read; nothing where there was none."""
    return getattr(outcome.result, "text", "")


@dataclass(frozen=True, slots=True)
class _Try(OfSeed):
    seed: Seed
    attempt: str = ""
    slot: int = 0
