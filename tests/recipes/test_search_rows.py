"""What the recipes around retrieval make: who retrieves, who is told, who learns to do without."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scripted_recipes import entailment_model, kept

from stillhouse.errors import RecipeError
from stillhouse.graders.entailment import follows
from stillhouse.graders.toxicity import harm
from stillhouse.recipe import load_recipe
from stillhouse.records import Example, user
from stillhouse.selection.faithfulness import entailed
from stillhouse.selection.privacy import toxic

Made = Callable[..., dict[str, list[Any]]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """`made("skills/...")`: what the recipe keeps with a scripted teacher, by branch."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    return lambda name, limit=3: kept(name, tmp_path, limit)


def reasons(folder: Path, step: str) -> set[str]:
    from stillhouse.store import read_jsonl

    (path,) = (folder / "run" / "knowledge").glob(f"*/*{step}/lost.jsonl")
    return {row["reason"] for _, row in read_jsonl(path)}


def test_the_teacher_is_told_what_helps_and_the_student_says_it(made: Made) -> None:
    """R17 (SAIL), SK03: results and their labels go to the teacher; the student writes the verdict before the answer."""
    (found,) = made("skills/context_following/search_augmented", None).values()
    told = [one for one in found if one.response.startswith("Passage ")]
    assert told
    assert all("helps." in one.asked[-1].content and "helps." not in one.prompt[-1].content for one in told)


def test_only_correct_reasoning_retrieves(made: Made, tmp_path: Path) -> None:
    """R18 (KARD): wrong answers are dropped before anything is looked up, so their passages are no lesson."""
    (found,) = made("skills/context_following/retrieved_rationales", None).values()
    steps = sorted((tmp_path / "run" / "knowledge" / "grounded").glob("*"))
    assert [step.name[3:] for step in steps[1:4]] == ["labeling.reason", "filter.rows", "retrieval.passages"]
    assert found


def test_queries_are_likely_and_find_their_document(made: Made, tmp_path: Path) -> None:
    """R55 (InPars, Promptagator), SK11: what another document answers better is dropped, with the reason."""
    made("skills/nlp/queries", None)
    assert reasons(tmp_path, "faithfulness.round_trip") <= {"not_found"}
    steps = [entry.do for entry in load_recipe("skills/nlp/queries").recipe.knowledge["queries"].select]
    assert steps == ["dedup.exact", "influence.likely", "faithfulness.round_trip"]


def test_windows_order_whole_lists_for_a_reranker(made: Made) -> None:
    """R56 (RankGPT), SK11: the script puts the second first; scores are 1 / rank."""
    (found,) = made("skills/nlp/windows", None).values()
    assert found[0].responses[0].startswith("The mill by the river was built in 1820")
    assert found[0].scores[:2] == (1.0, 0.5)


def test_a_professor_searches_and_the_student_does_not(made: Made) -> None:
    """R57 (QUILL): the label was given with passages in sight, and is learnt without."""
    (found,) = made("skills/nlp/without_search", None).values()
    assert all("Passage 1: " in one.asked[-1].content and "Passage" not in one.prompt[-1].content for one in found)


def test_passages_are_ranked_by_the_question_behind_them(made: Made) -> None:
    """R57 (ART): mean log-probabilities of a real model, best first, without a label."""
    (found,) = made("skills/nlp/questions_rank", None).values()
    assert all(len(one.responses) >= 2 and list(one.scores) == sorted(one.scores, reverse=True) for one in found)
    assert all(score < 0 for one in found for score in one.scores)
    second = load_recipe("skills/nlp/rewritten_queries").recipe.train[1]
    assert second.rollouts is not None
    assert second.rollouts.reward["do"] == "retrieval.hit"  # type: ignore[index]


def test_pairs_of_a_weak_model_are_kept_that_say_the_same(made: Made, tmp_path: Path) -> None:
    """R54 (Impossible Distillation), SK10, C06: length, overlap, numbers, entailment both ways; one a source."""
    (found,) = made("skills/nlp/paraphrases").values()
    assert {one.columns["context"] for one in found} <= {each["prompt"] for each in contexts()}
    assert all(
        one.prompt[0].content != one.response and "Ducks" not in one.response + one.prompt[0].content for one in found
    )
    assert len({one.prompt for one in found}) == len(found) == 2
    assert reasons(tmp_path, "faithfulness.overlap") == {"too_short", "too_long"}


def contexts() -> list[dict[str, str]]:
    import json

    from stillhouse.recipe import shipped_recipes

    lines = (shipped_recipes()["skills/nlp/paraphrases"].parent / "contexts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_nothing_is_kept_that_does_not_follow(tmp_path: Path) -> None:
    """R54, C06: the same classifier with its bias turned round drops every pair, by either direction."""
    rows = [Example("1", user("The bridge is shut."), "Nobody can cross.")]
    model = entailment_model(tmp_path / "never", bias=-9.0)
    grader = partial(follows, model=model)
    assert [why for _, why in entailed(rows, grader=grader, both=True)] == ["not_entailed"]
    grader = partial(follows, model=entailment_model(tmp_path / "always"))
    assert [why for _, why in entailed(rows, grader=grader, both=True)] == [None]


def test_toxicity_by_a_classifier_of_the_users(tmp_path: Path) -> None:
    """O6: the probability of the label that is named; independent labels by their own sigmoid; a missing label is refused."""
    from transformers import AutoModelForSequenceClassification

    path = entailment_model(tmp_path / "labels")
    loaded = AutoModelForSequenceClassification.from_pretrained(path)
    loaded.config.id2label = {0: "calm", 1: "toxic", 2: "odd"}
    loaded.save_pretrained(path)
    row = Example("1", user("q"), "You fool.")
    assert [why for _, why in toxic([row], grader=partial(harm, model=path))] == ["toxic"]
    (softmax,) = harm(["You fool."], [None], model=path)
    with pytest.raises(RecipeError, match="no label called insult; it has calm, toxic, odd"):
        harm(["You fool."], [None], model=path, label="insult")
    loaded.config.problem_type = "multi_label_classification"
    loaded.save_pretrained(tmp_path / "many")
    for each in Path(path).glob("token*"):
        (tmp_path / "many" / each.name).write_bytes(each.read_bytes())
    (sigmoid,) = harm(["You fool."], [None], model=str(tmp_path / "many"), label="calm")
    assert softmax.value is not None
    assert softmax.value > 0.9
    assert sigmoid.value == pytest.approx(0.5, abs=0.2)
