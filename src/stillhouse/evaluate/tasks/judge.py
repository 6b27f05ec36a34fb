"""Judging pairs as people did: is a judge to be trusted before it selects, rewards or ranks?"""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stillhouse.elicit.judge_prompts import ASPECTS, COMPARE, CRITERION
from stillhouse.elicit.rubric import Rubric
from stillhouse.errors import RecipeError
from stillhouse.evaluate import ItemScore
from stillhouse.evaluate.agreement import majority
from stillhouse.graders import verdicts
from stillhouse.records import Prompt, content_id, user
from stillhouse.rows import rows, template_of

__all__ = ["judge", "rated"]

Ask = Callable[[Sequence[Prompt], int], list[str]]
CANARY = "canary:"  # what the reason of a planted pair begins with


def judge(
    ask: Ask,
    *,
    path: Path,
    votes: Sequence[str],
    template: str = "{{ prompt }}",
    first: str = "response1",
    second: str = "response2",
    tie: str = "0",
    criterion: str = CRITERION,
    canaries: int = 20,
    max_new_tokens: int = 256,
    limit: int | None = None,
    seed: int = 0,
) -> list[ItemScore]:
    """Pairs of answers judged in both orders and held against people's votes; 1 where the judge says what most people say.

    `votes` names the fields with people's votes ("1", "2", or `tie`); an item without a majority is not counted. A verdict
    that changes with the order, or cannot be read, is none, and wrong: a judge that always says the same has no verdict at
    all. `canaries` further pairs set an answer against its own words in disorder: their reasons say "canary:right" or
    "canary:wrong" and count in no mean. Report and scores tell Cohen's kappa with its interval, whether the judge beats
    every constant one, and the canaries. Sources: R59 (PandaLM), 12.7.
    """
    pairs = _pairs("judge", path, votes, template, (first, second, tie), limit)
    pairs += _canaries(pairs, canaries, random.Random(seed))
    prompts = [each for pair in pairs for each in pair.prompts(criterion)]
    texts = ask(prompts, max_new_tokens)
    return [pair.scored(forth, back) for pair, forth, back in zip(pairs, texts[::2], texts[1::2], strict=True)]


def rated(
    ask: Ask,
    *,
    path: Path,
    votes: Sequence[str],
    template: str = "{{ prompt }}",
    first: str = "response1",
    second: str = "response2",
    tie: str = "0",
    aspects: Mapping[str, str] = ASPECTS,
    low: int = 1,
    high: int = 5,
    margin: float = 0.0,
    canaries: int = 20,
    max_new_tokens: int = 256,
    limit: int | None = None,
    seed: int = 0,
) -> list[ItemScore]:
    """The rubric judge of `feedback.rate` held against people's votes on pairs: each answer is rated alone.

    The higher mean over the aspects is the verdict; a difference of `margin` or less is a tie. Everything else as in
    `judge`; no order is shown, so none can decide. What it says of a rubric is as good as the pairs are like the answers it
    will rate. Sources: R36, R59, 12.7.
    """
    pairs = _pairs("judge.rated", path, votes, template, (first, second, tie), limit)
    pairs += _canaries(pairs, canaries, random.Random(seed))
    rubric = Rubric(aspects, low, high)
    prompts = [user(rubric.prompt(pair.request, answer)) for pair in pairs for answer in (pair.first, pair.second)]
    texts = ask(prompts, max_new_tokens)
    said = [_preferred(rubric, *both, margin) for both in zip(texts[::2], texts[1::2], strict=True)]
    return [pair.told(verdict, "no_verdict") for pair, verdict in zip(pairs, said, strict=True)]


def _preferred(rubric: Rubric, first: str, second: str, margin: float) -> str | None:
    one, two = rubric.mean(first), rubric.mean(second)
    if one is None or two is None:
        return None
    return "tie" if abs(one - two) <= margin else "1" if one > two else "2"


def _pairs(
    task: str, path: Path, votes: Sequence[str], template: str, named: tuple[str, str, str], limit: int | None
) -> list["_Pair"]:
    if not votes:
        raise RecipeError(f"{task}: votes is empty; name the fields that hold people's votes")
    write, (first, second, tie) = template_of(template, f"{task}.template"), named
    return [
        _Pair(write(row, f"{path}, row {number}"), str(row[first]), str(row[second]), _vote(row, votes, tie))
        for number, row in list(rows(Path(path)))[:limit]
    ]


def _vote(row: dict[str, Any], names: Sequence[str], tie: str) -> str | None:
    given = [str(row[name]) for name in names if row.get(name) is not None]
    found = majority(["tie" if vote == tie else vote for vote in given]) if given else None
    return None if found is None else str(found)


class _Pair:
    def __init__(self, request: str, first: str, second: str, vote: str | None, planted: str = "") -> None:
        self.request, self.first, self.second, self.vote, self.planted = request, first, second, vote, planted

    def prompts(self, criterion: str) -> tuple[Prompt, Prompt]:
        orders = ((self.first, self.second), (self.second, self.first))
        told = [COMPARE.format(prompt=self.request, first=one, second=two, criterion=criterion) for one, two in orders]
        return user(told[0]), user(told[1])

    def scored(self, forth: str, back: str) -> ItemScore:
        given, turned = _verdict(forth), _verdict(back)
        same = {"1": "2", "2": "1", "tie": "tie"}
        said = given if given is not None and same.get(turned or "") == given else None
        return self.told(said, "no_verdict" if None in (given, turned) else "order_flip")

    def told(self, said: str | None, why_none: str) -> ItemScore:
        name = content_id("Pair", self.request, self.first, self.second)
        right = float(said == (self.planted or self.vote))
        if self.planted:
            return ItemScore(
                name, self.request, self.planted, said or "", None, f"{CANARY}{'right' if right else 'wrong'}"
            )
        reason = why_none if said is None else "judged"
        value = None if self.vote is None else right
        return ItemScore(name, self.request, self.vote, said or "", value, "no_majority" if value is None else reason)


def _verdict(text: str) -> str | None:
    try:
        return verdicts.choice(text, ["1", "2", "tie"])
    except verdicts.NoVerdictError:
        return None


def _canaries(pairs: Sequence[_Pair], count: int, draw: random.Random) -> list[_Pair]:
    """An answer against its own words in disorder, on either side in turn: no judge that reads can miss it."""
    long = [pair for pair in pairs if len(pair.first.split()) >= 8]
    made = []
    for number, pair in enumerate(draw.sample(long, min(count, len(long)))):
        words = pair.first.split()
        draw.shuffle(words)
        sides = (pair.first, " ".join(words))
        planted = "1" if number % 2 == 0 else "2"
        made.append(_Pair(pair.request, *(sides if planted == "1" else sides[::-1]), None, planted))
    return made
