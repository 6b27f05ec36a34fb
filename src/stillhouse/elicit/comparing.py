"""Pairs asked in both orders, and what their verdicts amount to: the machinery behind `feedback.compare`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from stillhouse.elicit.asking import Unparsed, keys_of
from stillhouse.elicit.self_knowledge import ranking
from stillhouse.graders import verdicts
from stillhouse.records import Example, Lost, Ranking
from stillhouse.selection.texts import grouped
from stillhouse.teachers.base import Outcome

__all__: list[str] = []


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    members: list[Example]


@dataclass(frozen=True, slots=True)
class Duel:
    group: Group
    first: int
    second: int

    @property
    def id(self) -> str:
        return self.group.members[self.first].id

    @property
    def reference(self) -> None:
        return None


def comparable(examples: Iterable[Example]) -> Iterator[Any]:
    for members in grouped(examples):
        distinct = list({one.response: one for one in members}.values())
        yield Group(distinct) if len(distinct) > 1 else Lost(members[0].id, "single_answer")


def both_orders(count: int) -> list[tuple[int, int]]:
    return [order for a, b in combinations(range(count), 2) for order in ((a, b), (b, a))]


def verdict(text: str) -> str | Unparsed:
    try:
        return verdicts.choice(text, ["1", "2", "tie"])
    except verdicts.NoVerdictError as error:
        return Unparsed(str(error), text[-80:])


def ranked(group: Group, results: Sequence[Any], judge: str) -> Ranking | Lost:
    members = group.members
    if any(isinstance(value, Lost) for *_, value in results):
        failed = next(value for *_, value in results if isinstance(value, Lost))
        return replace(failed, parent=members[0].id, reason=f"verdict_{failed.reason}")
    wins, flips = [0] * len(members), 0
    for (there, *_, one), (_, *_, other) in zip(results[::2], results[1::2], strict=True):
        if {one, other} == {"1", "2"}:
            wins[there.first if one == "1" else there.second] += 1
        elif one == other and one != "tie":
            flips += 1
    outcomes = [outcome for _, _, outcome, _ in results]
    if max(wins) == min(wins):
        return Lost(members[0].id, "order_flip" if flips and not any(wins) else "tie", keys=keys_of(*outcomes))
    order = sorted(range(len(members)), key=lambda i: (-wins[i], i))
    return from_scores([members[i] for i in order], [float(wins[i]) for i in order], outcomes, judge)


def from_scores(
    members: Sequence[Example], scores: Sequence[float], outcomes: Sequence[Outcome], judge: str
) -> Ranking:
    first = members[0]
    ids, texts = tuple(one.id for one in members), tuple(one.response for one in members)
    return ranking(
        first, texts, tuple(scores), first.asked, judge or first.origin.teacher, keys_of(*outcomes), parents=ids
    )
