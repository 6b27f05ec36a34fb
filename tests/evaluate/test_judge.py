"""Judges against people's votes (R59): on PandaLM, with judges whose quality is known beforehand."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import RecipeError
from stillhouse.evaluate.judging import judged
from stillhouse.evaluate.tasks.judge import judge, rated
from stillhouse.records import Prompt

DATA = os.environ.get("STILLHOUSE_TEST_DATA")
PANDA: dict[str, Any] = {
    "votes": ["annotator1", "annotator2", "annotator3"], "template": "{{ instruction }}\n{{ input }}", "tie": "0",
}  # fmt: skip


def answers(prompt: Prompt) -> tuple[str, str]:
    found = re.search(r"Answer 1:\n=====\n(.*)\n=====\nAnswer 2:\n=====\n(.*)\n=====\n\nWhich", prompt[0].content, re.S)
    assert found
    return found[1], found[2]


def scored(path: Path, decide: Callable[[str, str], str], **knobs: Any) -> dict[str, Any]:
    def ask(prompts: Sequence[Prompt], limit: int) -> list[str]:
        return [f"A reason.\nVerdict: {decide(*answers(prompt))}" for prompt in prompts]

    rows = [{"arm": "a", "seed": 0, **asdict(each)} for each in judge(ask, path=path, **{**PANDA, **knobs})]
    (found,) = judged(rows)
    return found


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.json"
    rows = [
        {
            "instruction": f"say {n}", "input": "", "response1": f"a full answer to number {n} in nine words",
            "response2": "no", "annotator1": 1, "annotator2": 1, "annotator3": 2 if n % 2 else 0,
        }
        for n in range(12)
    ]  # fmt: skip
    path.write_text(json.dumps(rows))
    return path


def test_a_judge_of_length_by_hand(pairs: Path) -> None:
    """Everybody prefers the first, which is the longer: right each time; what is in disorder is as long, so no verdict."""
    found = scored(
        pairs, lambda one, two: "1" if len(one) > len(two) else "2" if len(two) > len(one) else "tie", canaries=4
    )
    assert (found["items"], found["accuracy"], found["missing"]) == (12, 1.0, 0.0)
    assert (found["canaries"], found["canaries_right"]) == (4, 0)


def test_constant_answers_do_not_win(pairs: Path) -> None:
    for said in ("1", "2"):
        found = scored(pairs, lambda one, two, said=said: said)
        assert (found["order_flips"], found["missing"], found["accuracy"]) == (1.0, 1.0, 0.0)
        assert not found["beats_constants"]
    tied = scored(pairs, lambda one, two: "tie")
    assert (tied["accuracy"], tied["beats_constants"], tied["canaries_right"]) == (0.0, False, 0)


def test_votes_must_be_named(pairs: Path) -> None:
    with pytest.raises(RecipeError, match="votes is empty"):
        judge(lambda prompts, limit: [], path=pairs, votes=[])


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_r59_one_annotator_as_the_judge_of_pandalm() -> None:
    """A person judges as people do (kappa above 0.7) and beats constants; whoever prefers the longer answer hardly does."""
    path = Path(DATA or "") / "preference" / "testset-v1.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    said = [{"0": "tie", "1": "1", "2": "2"}[str(row["annotator1"])] for row in rows]
    turned = {"1": "2", "2": "1", "tie": "tie"}

    def ask(prompts: Sequence[Prompt], limit: int) -> list[str]:
        orders = [each for vote in said for each in (vote, turned[vote])]  # both orders of each pair
        return [f"Verdict: {each}" for each in orders]

    given = judge(ask, path=path, **PANDA, canaries=0)
    (person,) = judged([{"arm": "a", "seed": 0, **asdict(each)} for each in given])
    longer = scored(
        path, lambda one, two: "1" if len(one) > len(two) else "2" if len(two) > len(one) else "tie", canaries=0
    )
    assert person["items"] > 950
    assert person["kappa"] > 0.7
    assert person["kappa_interval"][0] < person["kappa"] < person["kappa_interval"][1]
    assert person["beats_constants"]
    assert longer["kappa"] < 0.5 < person["kappa_interval"][0]


def rubric(path: Path, rate: Callable[[str], int], **knobs: Any) -> dict[str, Any]:
    """The rubric judge that gives every answer what `rate` says of its text."""

    def ask(prompts: Sequence[Prompt], limit: int) -> list[str]:
        texts = [re.search(r"Answer:\n=====\n(.*)\n=====\n\nGive a whole", p[0].content, re.S) for p in prompts]
        return [f"Reasons.\nhelp: {rate(text[1])}" for text in texts if text]

    told = {**PANDA, "aspects": {"help": "it is of use"}, **knobs}
    (found,) = judged([{"arm": "a", "seed": 0, **asdict(each)} for each in rated(ask, path=path, **told)])
    return found


def test_ratings_of_each_answer_alone_become_verdicts(pairs: Path) -> None:
    """Rated by length: the first of each pair wins; what is in disorder is as long, so every canary is missed."""
    found = rubric(pairs, lambda text: 5 if len(text) > 10 else 1, canaries=4)
    assert (found["items"], found["accuracy"], found["missing"]) == (12, 1.0, 0.0)
    assert (found["canaries_right"], found["beats_constants"], found["trusted"]) == (0, False, False)
    reads = rubric(pairs, lambda text: 5 if "full answer to number" in text else 1, canaries=4)
    assert (reads["accuracy"], reads["canaries_right"]) == (1.0, 4)
    near = rubric(pairs, lambda text: 5 if len(text) > 10 else 4, margin=1.0, canaries=0)
    assert (near["accuracy"], near["missing"]) == (0.0, 0.0)  # a difference within the margin is a tie


def test_a_rating_out_of_range_is_no_verdict(pairs: Path) -> None:
    found = rubric(pairs, lambda text: 9)
    assert (found["missing"], found["accuracy"]) == (1.0, 0.0)


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_r59_a_rubric_judge_is_calibrated_on_pandalm() -> None:
    """The probe that must not win: the same rating for everybody. Length in five steps agrees a little more than chance."""
    path = Path(DATA or "") / "preference" / "testset-v1.json"
    flat = rubric(path, lambda text: 3)
    assert (flat["kappa"], flat["trusted"]) == (0.0, False)
    length = rubric(path, lambda text: 1 + min(len(text) // 60, 4), canaries=20)
    assert 0.1 < length["kappa"] < 0.4
    assert (length["canaries_right"], length["trusted"]) == (0, False)
