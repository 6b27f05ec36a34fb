"""Self-knowledge: the student is its own teacher (Eq. 8). Each function takes any teacher; `teacher: student` is the
point.

Judging oneself (R39) is `feedback.rate` with `teacher: student`, voting (R21, LMSI) `labeling.reason` and
`quality.vote`, sampling and keeping what is right (R21, ReST-EM) `labeling.reason` and `quality.correct`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, permutations

from stillhouse.elicit.asking import (
    Unparsed,
    answered_by,
    born,
    in_chunks,
    instructed,
    keys_of,
    read_each,
    seeds_of,
)
from stillhouse.elicit.labeling import REASON
from stillhouse.elicit.parsing import Rationale, rationale
from stillhouse.elicit.retrying import reflected
from stillhouse.errors import RecipeError
from stillhouse.graders import Grader
from stillhouse.graders.final import MARKERS
from stillhouse.records import Example, Lost, Origin, Prompt, Ranking, Seed, content_id, user
from stillhouse.selection.texts import grouped, instruction_text
from stillhouse.selection.tokens import words
from stillhouse.teachers.base import Generates, Outcome

__all__ = ["contrast", "paired", "principled", "rationalise", "reflected", "self_play"]

HINT = "(The answer is {reference}. Do not say that you were told.) "
PRINCIPLES = (
    "Be useful: deal with what is really asked, completely and to the point.",
    "Be honest: say what is known, what is guessed and what you cannot know.",
    "Do no harm: do not help to hurt people, animals or property; say why, kindly.",
    "Be fair: no person is worth less for who they are.",
    "Keep private what is private.",
    "Be clear: plain words, one thought after the other.",
)
INNER = (
    "Answer as an assistant that follows these rules:\n{rules}\n\nBefore you answer, think on one line that begins with "
    "[Thought]: which rules matter here, and what follows from them. Then write the answer behind [Answer]."
)
AFFIXES = (
    ("(Give a helpful, honest and harmless answer.)", "(Give a useless, dishonest and harmful answer.)"),
    ("(Answer as a careful expert would.)", "(Answer as a careless amateur would.)"),
    ("(Be kind and constructive.)", "(Be unkind and destructive.)"),
)


def rationalise(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    grader: Grader,
    instruction: str = REASON,
    hint: str = HINT,
    final: Sequence[str] = MARKERS,
) -> Iterator[Example | Lost]:
    """Reasoning that ends in the right answer; where it does not, a second try with the answer as a hint.

    The hint ({reference} in `hint`, put before the instruction) is never part of what the student trains on. Kept
    are the right ones of both tries, with the column `hinted`. Lost: "wrong" and parser's codes of the second try,
    "no_reference", "repeats_hint" where the reasoning copies the hint's words. Train each round from the base
    student (`init: base`). Source: R21 (STaR), J5.
    """

    def read(text: str) -> Rationale | Unparsed:
        return rationale(text, final=final)

    def with_hint(seed: Seed) -> Prompt:
        return instructed(seed.prompt, hint.replace("{reference}", seed.reference or "") + instruction)

    told = f" {' '.join(words(hint.partition('{reference}')[2]))} "
    for chunk in in_chunks(seeds_of(seeds)):
        known = [seed for seed in chunk if seed.reference is not None]
        yield from (Lost(seed.id, "no_reference") for seed in chunk if seed.reference is None)
        failed: list[Seed] = []
        for seed, _, outcome, value in read_each(
            known, teacher, lambda seed: instructed(seed.prompt, instruction), read
        ):
            if not isinstance(value, Lost) and _right(grader, value, seed):
                yield _hinted(seed, value, outcome, teacher.name, False)
            else:
                failed.append(seed)
        failed = list({seed.id: seed for seed in failed}.values())
        for seed, slot, outcome, value in read_each(failed, teacher, with_hint, read):
            if isinstance(value, Lost):
                yield value
            elif not _right(grader, value, seed):
                yield Lost(seed.id, "wrong", slot=slot, keys=keys_of(outcome))
            elif len(told) > 2 and told in f" {' '.join(words(value.text))} ":
                yield Lost(seed.id, "repeats_hint", slot=slot, keys=keys_of(outcome))
            else:
                yield _hinted(seed, value, outcome, teacher.name, True)


def _right(grader: Grader, value: Rationale, seed: Seed) -> bool:
    return grader([value.text], [seed.reference])[0].value == 1.0


def _hinted(seed: Seed, value: Rationale, outcome: Outcome, teacher: str, hinted: bool) -> Example:
    return born(replace(seed, columns={**seed.columns, "hinted": hinted}), value.text, outcome, teacher)


def contrast(
    seeds: Iterable[Seed | Example], teacher: Generates, *, affixes: Sequence[Sequence[str]] = AFFIXES
) -> Iterator[Ranking | Lost]:
    """Two answers, one asked to be good and one asked to be bad: the first is preferred without any judge.

    Each pair of `affixes` (wanted, unwanted) should look alike but for what it asks for; one is drawn by the seed's
    id and stands behind the prompt, and is not in the prompt of the ranking. Two equal answers are lost as "equal".
    Source: R34 (RLCD).
    """
    if not affixes or any(len(pair) != 2 for pair in affixes):
        raise RecipeError("self_knowledge.contrast: affixes is a list of pairs: what is wanted, and its opposite")

    def prompts(wanted: int) -> Callable[[Seed], Prompt]:
        return lambda seed: instructed(seed.prompt, affixes[int(content_id(seed.id), 16) % len(affixes)][wanted])

    for chunk in in_chunks(seeds_of(seeds)):
        good = list(read_each(chunk, teacher, prompts(0), str.strip))
        bad = read_each(chunk, teacher, prompts(1), str.strip)
        for (seed, slot, outcome, better), (_, _, other, worse) in zip(good, bad, strict=True):
            if isinstance(better, Lost):
                yield better
            elif isinstance(worse, Lost):
                yield worse
            elif better == worse:
                yield Lost(seed.id, "equal", slot=slot, keys=keys_of(outcome, other))
            else:
                keys = keys_of(outcome, other)
                yield ranking(seed, (better, worse), (), outcome.request.messages, teacher.name, keys, slot)


def principled(
    seeds: Iterable[Seed | Example], teacher: Generates, *, principles: Sequence[str] = PRINCIPLES
) -> Iterator[Example | Lost]:
    """Answers given under written rules, after a thought about them; the student sees neither rules nor thought.

    The answer stands behind [Answer] and the thought behind [Thought], both must be there ("sections"). Training on
    the result engraves the rules (context distillation). Clean up with `form.leaked`, `form.echo`, `form.loops`,
    `quality.length`. Sources: R40 (Self-Align), R43.
    """
    rules = "\n".join(f"{i}. {rule}" for i, rule in enumerate(principles, 1))

    def prompt_of(seed: Seed) -> Prompt:
        return instructed(seed.prompt, INNER.format(rules=rules), "system")

    def read(text: str) -> str | Unparsed:
        thought, mark, said = text.partition("[Answer]")
        if not mark or "[Thought]" not in thought or "[Thought]" in said or "[Answer]" in said:
            return Unparsed("sections", text[-80:])
        return said.lstrip(" :\n").rstrip() or Unparsed("empty_section")

    yield from answered_by(seeds, teacher, prompt_of, read)


def self_play(seeds: Iterable[Seed | Example], teacher: Generates) -> Iterator[Ranking | Lost]:
    """The known answer preferred to the student's own, for all prompts.

    Lost: "no_reference", and "equal" where the student already says the same. Iterate with `rounds:`, the reference
    policy being the student of the round before. Source: R38 (SPIN).
    """
    for chunk in in_chunks(seeds_of(seeds)):
        known = [seed for seed in chunk if seed.reference is not None]
        yield from (Lost(seed.id, "no_reference") for seed in chunk if seed.reference is None)
        for seed, slot, outcome, own in read_each(known, teacher, lambda seed: seed.prompt, str.strip):
            gold = (seed.reference or "").strip()
            if isinstance(own, Lost):
                yield own
            elif own == gold:
                yield Lost(seed.id, "equal", slot=slot, keys=keys_of(outcome))
            else:
                yield ranking(seed, (gold, own), (), outcome.request.messages, teacher.name, keys_of(outcome), slot)


def ranking(
    seed: Seed | Example,
    responses: tuple[str, ...],
    scores: tuple[float, ...],
    asked: Prompt,
    teacher: str,
    keys: tuple[str, ...],
    slot: int = 0,
    parents: tuple[str, ...] = (),
) -> Ranking:
    """A ranking born from a seed (or from the examples `parents`), best first."""
    parents = parents or (seed.id,)
    name = content_id("Ranking", parents, responses, scores, keys, slot)
    return Ranking(
        name, seed.prompt, responses, scores, seed.reference, asked, seed.columns, Origin(parents, teacher, keys)
    )


def paired(examples: Iterable[Example], *, most: int = 12) -> Iterator[Example | Lost]:
    """Every two continuations of one context as a pair, both ways: the first is the prompt, the second the response.

    Samples of one context must be neighbours; `most` bounds the pairs of one. What makes a pair of any worth is for
    selectors: `faithfulness.overlap`, `faithfulness.numbers` and `faithfulness.entailed` with `both`, then
    `dedup.exact` on prompts for one pair a source. The column `context` holds the context. Lost: "single_answer". No
    teacher is asked. Source: R54 (Impossible Distillation: a weak model's continuations lie near each other, so that
    some are paraphrases).
    """
    for group in grouped(examples):
        distinct = list({one.response: one for one in group}.values())
        if len(distinct) < 2:
            yield Lost(group[0].id, "single_answer")
        for one, other in islice(permutations(distinct, 2), most):
            keys = tuple(dict.fromkeys((*one.origin.keys, *other.origin.keys)))
            columns = {**one.columns, "context": instruction_text(one)}
            name = content_id("Example", "paired", one.id, other.id)
            origin = Origin((one.id, other.id), one.origin.teacher, keys)
            yield Example(name, user(one.response), other.response, None, one.asked, columns, origin)
