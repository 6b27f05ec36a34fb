"""RLEIF (R24): versions of a request ranked, steps scored by a critic's head, and the product of both as a reward."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from stillhouse.elicit.feedback import rank_requests
from stillhouse.elicit.judge_prompts import REQUESTED
from stillhouse.elicit.preferences import step_rewards
from stillhouse.records import Example, Lost, Origin, Ranking, Seed, user
from stillhouse.render import render
from stillhouse.train.student import load_student, save_student

Scripted = Callable[..., Any]


def version(name: str, text: str, parent: str = "") -> Seed:
    return Seed(name, user(text), origin=Origin((parent,) if parent else ()))


def test_versions_of_one_request_are_ranked_as_requests(scripted: Scripted) -> None:
    """R24: all generations of a seed are one family, wherever they stand; the prompt is the same line for all."""
    seeds = [
        version("a", "Two and two?"), version("b", "Three owls?"), version("a1", "Two and two of what?", "a"),
        version("b1", "Three owls, and a cat?", "b"), version("a2", "Twice two and two?", "a1"), version("c", "Alone?"),
    ]  # fmt: skip
    found = list(rank_requests(seeds, scripted(reply="[1] > [2] > [3]"), untrusted="unchecked"))
    (family,) = [one for one in found if isinstance(one, Ranking)]
    assert set(family.responses) == {"Two and two?", "Two and two of what?", "Twice two and two?"}
    assert family.scores == (2.0, 1.0, 0.0)
    assert family.prompt == user(REQUESTED)
    # the judge names three of a family of two; the last has no family
    assert [one.reason for one in found if isinstance(one, Lost)] == ["no_permutation", "single_answer"]


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two scoring heads with weights drawn by seed, on the embedded student."""
    folder = tmp_path_factory.mktemp("judges")
    for seed, name in enumerate(("steps", "requests")):
        student = load_student("pocket", kind="reward", seed=seed)
        with torch.no_grad():
            student.model.score.weight.mul_(20)  # chances away from a half
        save_student(student, folder / name)
    return folder / "steps", folder / "requests"


def chance(folder: Path, prompt: str, answer: str, ends: str | None) -> float:
    """The head's sigmoid at the token that ends `ends` (None: the end of the turn), by a forward pass up to there."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64)
    row = render(tokenizer, user(prompt), answer)
    sizes = range(1, len(row.response) + 1)
    size = None if ends is None else next(n for n in sizes if len(tokenizer.decode(row.response[:n])) >= len(ends))
    ids = row.ids if size is None else row.ids[: row.start + size]
    with torch.no_grad():
        states = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state
        return float(model.score(states[0, -1]).sigmoid()[0])


def test_steps_and_request_are_multiplied(judges: tuple[Path, Path]) -> None:
    """R24: r(x) times the product, or the least, of the chances of the steps; against forward passes in float64."""
    steps, requests = judges
    text = "3 and 3 is 6.\nThe answer is 6."
    one = Example("e", user("Ida sees 3 owls and 3 cats. How many?"), text)
    empty = Example("f", one.prompt, "")
    chances = [chance(steps, one.prompt[0].content, text, part) for part in ("3 and 3 is 6.", text)]
    worth = chance(requests, REQUESTED, one.prompt[0].content, None)
    product, none = step_rewards([one, empty], path=steps)
    assert product.columns["score"] == pytest.approx(chances[0] * chances[1], rel=1e-4)
    assert none.columns["score"] == 0.0
    (least,) = step_rewards([one], path=steps, aggregate="least")
    assert least.columns["score"] == pytest.approx(min(chances), rel=1e-4)
    (both,) = step_rewards([one], path=steps, requests_path=requests)
    assert both.columns["score"] == pytest.approx(worth * chances[0] * chances[1], rel=1e-4)
    assert 0.01 < min(*chances, worth) < 0.99
