"""Best of n by a verifier (R21, V-STaR): what it picks, what it is held against, from a function and from a recipe."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import stillhouse
from stillhouse.check import check
from stillhouse.elicit.feedback import by_score
from stillhouse.errors import RecipeError
from stillhouse.evaluate.tasks.best_of import best_of
from stillhouse.graders import math
from stillhouse.pocket import student_path
from stillhouse.recipe import load_recipe
from stillhouse.records import Example, Lost, Prompt, Ranking, user
from stillhouse.render import render
from stillhouse.scoring import Likelihood
from stillhouse.teachers.base import Sampling


class Drawn:
    """The same texts for every question."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def draw(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[str]]:
        return [list(self.texts[: sampling.n]) for _ in prompts]


class Likes:
    def __init__(self, *values: float) -> None:
        self.values = values

    def scores(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
        return [self.values[at % len(self.values)] for at in range(len(pairs))]


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    path = tmp_path / "held_out.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"2 + {n}?", "reference": "4"}) + "\n" for n in (2, 2)))
    return path


ANSWERS = Drawn("The answer is 3.", "The answer is 4.", "The answer is 3.", "no idea")


@pytest.mark.parametrize(
    ("likes", "against", "value"),
    [
        ((0.0, 1.0, 0.0, 0.0), None, 1.0),
        ((2.0, 1.0, 0.0, 0.0), None, 0.0),
        ((1.0, 1.0, 0.0, 0.0), None, 0.0),  # the earliest of equals
        ((0.0, 1.0, 0.0, 0.0), "chance", 1 - 1 / 4),  # "no idea" is wrong, not unknown
        ((2.0, 1.0, 0.0, 0.0), "chance", -1 / 4),
        ((0.0, 1.0, 0.0, 0.0), "vote", 1.0),  # the majority says 3
        ((2.0, 1.0, 0.0, 0.0), "vote", 0.0),
    ],
)
def test_the_best_liked_answer_is_graded(likes: Any, against: Any, value: float, asked: Path) -> None:
    """R21: a verifier among four answers, and what they are worth without one."""
    found = best_of(Likes(*likes), ANSWERS, path=asked, grader=math.equal, n=4, against=against)
    assert [one.value for one in found] == pytest.approx([value, value])


def test_a_tie_of_votes_is_worth_their_mean(asked: Path) -> None:
    drawn = Drawn("The answer is 3.", "The answer is 4.")
    (one, _) = best_of(Likes(0.0, 1.0), drawn, path=asked, grader=math.equal, n=2, against="vote")
    assert one.value == 0.5
    with pytest.raises(RecipeError, match="nothing to choose from"):
        best_of(Likes(0.0), drawn, path=asked, grader=math.equal, n=1)


def test_likelihood_is_the_log_probability_of_the_whole_answer() -> None:
    """R21: against the library's own forward pass in float64."""
    pairs = [(user("How many owls stay?"), "The answer is 5."), (user("And now?"), "7")]
    tokenizer = AutoTokenizer.from_pretrained(student_path())
    model = AutoModelForCausalLM.from_pretrained(student_path(), dtype=torch.float64)
    wanted = []
    for prompt, answer in pairs:
        row = render(tokenizer, prompt, answer)
        with torch.no_grad():
            told = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        wanted.append(float(sum(told[at - 1, row.ids[at]] for at in range(row.start, len(row.ids)))))
    assert Likelihood(student_path()).scores(pairs) == pytest.approx(wanted, rel=1e-4)


def test_rated_answers_become_one_ranking() -> None:
    """R21: every right answer stands above every wrong one, in one row."""
    rows = [("a", 0.0), ("b", 1.0), ("c", 0.0), ("b", 1.0), ("d", 1.0)]
    said = [Example(str(n), user("x"), text, columns={"score": score}) for n, (text, score) in enumerate(rows)]
    (one,) = by_score(said)
    assert isinstance(one, Ranking)
    assert (one.responses, one.scores) == (("b", "d", "a", "c"), (1.0, 1.0, 0.0, 0.0))
    same = [Example("1", user("y"), "a", columns={"score": 1}), Example("2", user("y"), "b", columns={"score": 1})]
    assert [each.reason for each in by_score(same) if isinstance(each, Lost)] == ["tie"]
    assert [each.reason for each in by_score(same[:1]) if isinstance(each, Lost)] == ["no_score"]


def test_both_verifiers_of_the_recipe_choose_among_the_same_answers(tmp_path: Path) -> None:
    """R21 (V-STaR): the shipped recipe, with known right and wrong solutions in the place of sampled ones."""
    told = load_recipe("skills/nlp/verifier").data
    rows = [
        {"prompt": f"{n} and 2?", "reference": f"The answer is {n + 2}.", "wrong": f"The answer is {n + 5}."} for n in range(6)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seeds = {"do": "file", "path": str(tmp_path / "rows.jsonl"), "columns": ["wrong", "reference"]}
    known = {"do": "preferences.known", "responses": ["reference", "wrong"]}
    right = {"seeds": {**seeds, "reference": "reference"}, "elicit": [{"do": "labeling.reference"}]}
    told["knowledge"] = {"compared": {"seeds": seeds, "elicit": [known]}, "right": right}
    check(load_recipe(told))
    del told["arms"]["right"]
    for arm in told["arms"].values():
        arm["train"]["args"] = {"max_steps": 1, "per_device_train_batch_size": 2}
    told["evaluate"] = [each | {"n": 2, "max_new_tokens": 6, "limit": 3} for each in told["evaluate"][::2]]
    run = stillhouse.distill(told, out=tmp_path / "run", quiet=True)
    scores = json.loads((run.path / "evaluate" / "scores.json").read_text())
    assert {(row["task"], row["arm"]) for row in scores["summary"]} == {
        (task, arm) for task in ("best_of", "over_vote") for arm in ("base", "likelihood", "reward")
    }
    drawn = {
        arm: [
            json.loads(line) for line in (run.path / "evaluate" / "best_of" / f"{arm}.jsonl").read_text().splitlines()
        ]
        for arm in ("likelihood-0", "reward-0")
    }
    likelihood, reward = ([row["item"] for row in found] for found in drawn.values())
    assert likelihood == reward


def test_only_students_that_can_judge_are_asked() -> None:
    told = load_recipe("skills/nlp/verifier").data
    told["arms"] = {"reward": {**told["arms"]["reward"], "student": {"kind": "encoder"}}}
    told["arms"]["reward"]["train"] = {"objectives": [{"do": "embedding.in_batch", "on": "compared"}]}
    with pytest.raises(RecipeError, match="needs a student that writes, or one of kind reward"):
        check(load_recipe(told))
