"""Debates: both sides heard before one of them is learnt (R45, DEBATunE)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from stillhouse.elicit.asking import born, in_chunks, keys_of, read_each, seeds_of
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Prompt, Seed, user
from stillhouse.selection.texts import prompt_text
from stillhouse.teachers.base import Generates, Outcome, Sampling

__all__ = ["statement"]

Side = Literal["for", "against"]
SPEAK = (
    "Two people debate this question:\n=====\n{topic}\n=====\n{argument}You speak {side} it.{heard}\n\nWrite {part}, in a few "
    "sentences, and nothing else."
)
OPENING = "your opening: what you hold and why"
REBUTTAL = "your rebuttal: answer what the other side said last"
FINAL = "your closing statement: your whole case, with answers to all that the other side brought up"
ASKED = "Write a statement {side} this: {topic}{argument}"


def statement(
    seeds: Iterable[Seed | Example],
    teacher: Generates,
    *,
    stances: Sequence[Side] = ("for", "against"),
    argument: str | None = None,
    rebuttals: int = 1,
) -> Iterator[Example | Lost]:
    """The closing statement of each side of a debate about a topic; the student is asked for topic and stance alone.

    The teacher speaks for both sides: openings, `rebuttals` rounds of rebuttals, then the closing statement of the stance;
    each stance has a debate of its own. The column named by `argument` holds a point to build the case on. Columns: `stance`,
    and `debate`, what was said before. A debate with an answer missing is lost. Source: R45 (DEBATunE).
    """
    if not stances or rebuttals < 0:
        raise RecipeError("debate.statement: name at least one stance, and write 0 or more rebuttals")
    sampling = replace(teacher.sampling, n=1)
    for chunk in in_chunks(seeds_of(seeds)):
        debates = [Debate(seed, side, argument) for seed in chunk for side in stances]
        for part in (OPENING, *[REBUTTAL] * rebuttals):
            for turn in (0, 1):
                _go_on(debates, teacher, part, turn, sampling)
        _go_on(debates, teacher, FINAL, 0, sampling)
        for debate in debates:
            yield debate.failed or debate.given(teacher.name)


def _go_on(debates: "Sequence[Debate]", teacher: Generates, part: str, turn: int, sampling: Sampling) -> None:
    """The next speech of every debate that is still going: its own side on turn 0, the other on turn 1."""

    def prompt_of(debate: Debate) -> Prompt:
        return debate.asked(part, debate.sides[turn])

    going = [debate for debate in debates if debate.failed is None]
    for debate, _, outcome, said in read_each(going, teacher, prompt_of, str.strip, sampling=sampling):
        if isinstance(said, Lost):
            debate.failed = said
        else:
            debate.said.append((debate.sides[turn], said))
            debate.outcomes.append(outcome)


@dataclass(slots=True, eq=False)
class Debate:
    seed: Seed
    side: Side
    column: str | None
    said: list[tuple[Side, str]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    failed: Lost | None = None

    @property
    def id(self) -> str:
        return self.seed.id

    @property
    def reference(self) -> None:
        return None

    @property
    def sides(self) -> tuple[Side, Side]:
        """Its own side and the other."""
        return (self.side, "against") if self.side == "for" else (self.side, "for")

    @property
    def argument(self) -> str:
        return str(self.seed.columns.get(self.column) or "") if self.column else ""

    def asked(self, part: str, side: Side) -> Prompt:
        heard = "".join(f"\n\nThe side {who} it said:\n{text}" for who, text in self.said)
        built = f"Build your case on this point: {self.argument}\n" if self.argument and side == self.side else ""
        return user(
            SPEAK.format(topic=prompt_text(self.seed.prompt), argument=built, side=side, heard=heard, part=part)
        )

    def given(self, teacher: str) -> Example:
        argument = f"\nBuild it on this point: {self.argument}" if self.argument else ""
        prompt = user(ASKED.format(side=self.side, topic=prompt_text(self.seed.prompt), argument=argument))
        heard = [f"{who}: {text}" for who, text in self.said[:-1]]
        columns = {**self.seed.columns, "stance": self.side, "debate": heard}
        made = born(replace(self.seed, prompt=prompt, columns=columns), self.said[-1][1], self.outcomes[-1], teacher)
        return replace(made, origin=replace(made.origin, keys=keys_of(*self.outcomes)))
