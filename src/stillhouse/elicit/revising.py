"""Answers mended: `feedback.revise`, `prefer_revised`, `reflect` and `minimal_edit`, and the chain behind the first two."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from stillhouse.elicit.asking import Unparsed, in_chunks, keys_of, read_each, sections
from stillhouse.elicit.judge_prompts import GENERAL, MEND, ON_ANSWER, ON_REQUEST, REFLECT, REVISE, REWRITE
from stillhouse.elicit.self_knowledge import ranking
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, Prompt, Ranking, content_id, user
from stillhouse.selection.texts import prompt_text
from stillhouse.teachers.base import Generates, Outcome

__all__: list[str] = []


def revise(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    principles: Sequence[str] = (GENERAL,),
    times: int = 1,
    chain: bool = False,
    seed: int = 0,
) -> Iterator[Example | Lost]:
    """Each answer criticised and revised, `times` times, each time by a principle drawn for it; the last revision is given.

    It ends early where a revision changes nothing; an answer that never changes is given as it was. The column `was` keeps
    the first answer. With `chain` the
    response is answer, critique and revision in turn, to teach revising itself. Sources: R32 (Constitutional AI: up
    to 4 times), R13, R14.
    """
    for result in revised(examples, teacher, principles, times, seed):
        yield result if isinstance(result, Lost) else result.text(teacher.name, chain)


def reflect(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    on_request: Sequence[str] = ON_REQUEST,
    on_answer: Sequence[str] = ON_ANSWER,
) -> Iterator[Example | Lost]:
    """Request and answer criticised by written criteria and both rewritten; the student learns the new pair.

    Columns: `was_request` and `was` keep the old pair. The reference belongs to the old request and is dropped. One answer of
    the teacher holds all four sections, or the row is lost as "sections" or "empty_section"; a pair that stays as it was is
    lost as "unchanged". Next: `feedback.revise` for the second pass on the answer alone. Source: R13 (Reflection-Tuning).
    """
    told = {"request": "; ".join(on_request), "answer": "; ".join(on_answer)}

    def prompt_of(one: Example) -> Prompt:
        return user(REFLECT.format(prompt=prompt_text(one.prompt), response=one.response, **told))

    def read(text: str) -> dict[str, str] | Unparsed:
        return sections(text, ("Critique of the request", "Request", "Critique of the answer", "Answer"))

    for one, slot, outcome, value in read_each(examples, teacher, prompt_of, read):
        if isinstance(value, Lost):
            yield value
            continue
        before, new, response = prompt_text(one.prompt), value["Request"], value["Answer"]
        if (new.split(), response.split()) == (before.split(), one.response.split()):
            yield Lost(one.id, "unchanged", slot=slot, keys=keys_of(outcome))
            continue
        columns = {**one.columns, "was_request": before, "was": one.response}
        name, origin = (
            content_id("Example", one.id, new, response, outcome.key),
            Origin((one.id,), teacher.name, keys_of(outcome)),
        )
        yield Example(name, user(new), response, None, outcome.request.messages, columns, origin)


def prefer_revised(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    principles: Sequence[str] = (GENERAL,),
    times: int = 1,
    seed: int = 0,
) -> Iterator[Ranking | Lost]:
    """The revision of each answer preferred to the answer itself; one that never changes is lost as "unchanged".

    Knobs as in `revise`. Sources: R32, R13.
    """
    for result in revised(examples, teacher, principles, times, seed):
        yield result if isinstance(result, Lost) else result.pair(teacher.name)


def minimal_edit(
    examples: Iterable[Example],
    teacher: Generates,
    *,
    problem: str | None = None,
    show_reference: bool = True,
    most_changed: float = 0.7,
) -> Iterator[Example | Lost]:
    """A wrong answer corrected with as few changes as possible, so that the student sees where it went wrong.

    The column `problem` (an error message, say) and the reference are shown to the teacher where there are any; the
    column `was` keeps the wrong answer. A correction whose words differ from it by more than `most_changed` is a new
    answer and lost as "rewritten", an unchanged one as "unchanged". Whether it is right is for `quality.correct`.
    Sources: R42 (RLMEC), R60 (PERsD).
    """
    from rapidfuzz.distance import Indel

    def prompt_of(one: Example) -> Prompt:
        known = (
            f"What went wrong:\n=====\n{one.columns[problem]}\n=====\n" if problem and one.columns.get(problem) else ""
        )
        if show_reference and one.reference:
            known += f"The right result:\n=====\n{one.reference}\n=====\n"
        return user(MEND.format(prompt=prompt_text(one.prompt), response=one.response, known=known))

    for one, slot, outcome, text in read_each(examples, teacher, prompt_of, str.strip):
        if isinstance(text, Lost):
            yield text
            continue
        changed = Indel.normalized_distance(one.response.split(), text.split())
        if changed == 0 or changed > most_changed:
            yield Lost(one.id, "rewritten" if changed else "unchanged", slot=slot, keys=keys_of(outcome))
            continue
        name, keys = content_id("Example", one.id, text, outcome.key), keys_of(outcome)
        columns = {**one.columns, "was": one.response}
        origin = Origin((one.id,), teacher.name, keys)
        yield replace(one, id=name, response=text, asked=outcome.request.messages, columns=columns, origin=origin)


def rewriting_prompt(prompt: Prompt, answer: str) -> Prompt:
    """What a generative reward model reads before an answer that it is to write again, or to judge token by token (R42)."""
    return user(REWRITE.format(prompt=prompt_text(prompt), response=answer))


def revised(
    examples: Iterable[Example], teacher: Generates, principles: Sequence[str], times: int, seed: int
) -> "Iterator[Chain | Lost]":
    if not principles:
        raise RecipeError("feedback.revise: principles is empty; write at least one")
    sampling = replace(teacher.sampling, n=1)
    for chunk in in_chunks(examples):
        chains = [Chain(one, one.response, [one.response], []) for one in chunk]
        for turn in range(times):

            def prompt_of(chain: Chain, turn: int = turn) -> Prompt:
                drawn = principles[int(content_id(seed, chain.first.id, turn), 16) % len(principles)]
                return user(REVISE.format(prompt=prompt_text(chain.first.prompt), response=chain.now, principle=drawn))

            active = [chain for chain in chains if not chain.over]
            for chain, _, outcome, value in read_each(active, teacher, prompt_of, parts, sampling=sampling):
                chain.step(value, outcome)
        for chain in chains:
            yield chain.failed or chain


def parts(text: str) -> dict[str, str] | Unparsed:
    return sections(text, ("Critique", "Revision"))


@dataclass(slots=True)
class Chain:
    """An answer on its way through revisions."""

    first: Example
    now: str
    texts: list[str]
    outcomes: list[Outcome]
    over: bool = False
    failed: Lost | None = None
    reference: str | None = None

    @property
    def id(self) -> str:
        return self.first.id

    def step(self, value: dict[str, str] | Lost, outcome: Outcome) -> None:
        if isinstance(value, Lost):
            self.over, self.failed = True, value
            return
        self.outcomes.append(outcome)
        self.texts += [value["Critique"], value["Revision"]]
        self.over = value["Revision"].split() == self.now.split()
        self.now = value["Revision"]

    def pair(self, teacher: str) -> Ranking | Lost:
        one, keys = self.first, keys_of(*self.outcomes)
        if self.now.split() == one.response.split():
            return Lost(one.id, "unchanged", keys=keys)
        return ranking(one, (self.now, one.response), (), one.asked, teacher, keys, parents=(one.id,))

    def text(self, teacher: str, chain: bool) -> Example:
        one, keys, text = self.first, keys_of(*self.outcomes), self.now
        if chain:
            marks = ("Critique:", "Revision:")
            text = "\n\n".join([self.texts[0], *(f"{marks[i % 2]} {part}" for i, part in enumerate(self.texts[1:]))])
        asked_with = self.outcomes[-1].request.messages if self.outcomes else one.asked
        name, columns = content_id("Example", one.id, text, keys), {**one.columns, "was": one.response}
        origin = Origin((one.id,), teacher, keys)
        return replace(one, id=name, response=text, asked=asked_with, columns=columns, origin=origin)
