"""Answers on their way through critique and revision: the machinery behind `feedback.revise` and `feedback.prefer_revised`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from stillhouse.elicit.asking import Unparsed, in_chunks, keys_of, read_each, sections
from stillhouse.elicit.judge_prompts import REVISE
from stillhouse.elicit.self_knowledge import ranking
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Origin, Prompt, Ranking, content_id, user
from stillhouse.selection.texts import prompt_text
from stillhouse.teachers.base import Generates, Outcome

__all__: list[str] = []


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
        name = content_id("Example", one.id, text, keys)
        return replace(one, id=name, response=text, asked=asked_with, origin=Origin((one.id,), teacher, keys))
