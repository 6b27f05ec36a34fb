"""A teacher whose terms changed: what it touched, and a student trained again without it."""

import pytest
from small_runs import knowledge, sums, write_jsonl

from stillhouse.books import audit
from stillhouse.compliance.lineage import taint, teachers_of_rows
from stillhouse.errors import GoalNotMet, RecipeError, TermsRefused
from stillhouse.recipe import load_recipe
from stillhouse.run import Options, execute
from stillhouse.terms import terms_of

LLAMA3 = {"record": "meta.llama3@2024-04-18"}


def recipe(tmp_path, **more):
    """Two teachers in turn, and a student of one step."""
    write_jsonl(tmp_path / "seeds.jsonl", sums(8))
    data = knowledge(str(tmp_path / "seeds.jsonl"))
    data["teachers"]["other"] = {"backend": "scripted", "reply": "I make it {reference}."}
    data["knowledge"]["answers"]["elicit"] = [
        {"do": "labeling.answer", "teacher": ["main", "other"], "route": "round_robin"}
    ]
    data["student"] = {"model": "pocket"}
    data["train"] = {
        "objectives": [{"do": "supervised.cross_entropy", "on": "answers"}],
        "args": {"max_steps": 1, "per_device_train_batch_size": 2},
    }
    return {**data, **more}


def ran(data, tmp_path, *without):
    return execute(load_recipe(data), tmp_path / "run", Options(quiet=True, without=without))


def test_taint_lists_and_retraining_leaves_out(tmp_path):
    data = recipe(tmp_path)
    first = ran(data, tmp_path)
    found = taint(first.path, "other")
    assert {step: len(ids) for step, ids in found.rows.items()} == {
        "answers/01-labeling.answer": 4, "answers/02-quality.correct": 4,
    }  # fmt: skip
    assert (found.datasets, found.students) == (("answers",), ("students/main/0", "student"))
    before = first.manifest["students"][0]["hash"]

    data["teachers"]["other"]["terms"] = LLAMA3  # what the new text says
    with pytest.raises(TermsRefused, match="PROHIBITED_CLAUSE"):
        ran(data, tmp_path)
    again = ran(data, tmp_path, "other")
    assert again.manifest["students"][0]["hash"] != before
    assert teachers_of_rows(again.path) == {"main"}
    asked = next(step for step in again.manifest["steps"] if step["do"] == "labeling.answer")
    assert asked["lost"] == {"without_teacher": 4}
    assert [each["name"] for each in asked["teachers"]] == ["main"]
    assert audit(again.path)["balanced"]
    assert [t["model"] for t in again.manifest["terms"]["plan"]["teachers"]] == ["stillhouse/scripted"]
    assert taint(again.path, "other").students == ()
    assert "Llama" not in (again.student / "README.md").read_text()


def test_nothing_is_asked_of_a_teacher_that_is_left_out(tmp_path):
    """Also the first time: its answers would be had for nothing, or against its terms."""
    data = recipe(tmp_path, train=None)
    data["teachers"]["other"] = {"backend": "recorded", "path": str(tmp_path / "none.jsonl"), "terms": LLAMA3}
    assert len(ran({k: v for k, v in data.items() if v}, tmp_path, "other").records("answers")) == 4


def test_a_branch_of_that_teacher_alone_has_no_rows_left(tmp_path):
    data = recipe(tmp_path)
    data["knowledge"]["answers"]["elicit"] = [{"do": "labeling.answer", "teacher": "other"}]
    with pytest.raises(GoalNotMet, match="8 without_teacher"):
        ran(data, tmp_path, "other")


def test_an_objective_beside_that_teacher_has_to_go_first(tmp_path):
    data = recipe(tmp_path)
    data["teachers"]["pocket"] = {"backend": "pocket"}
    data["train"]["objectives"].append({"do": "divergence.forward_kl", "on": "answers", "teacher": "pocket"})
    with pytest.raises(RecipeError, match="asks this teacher as it goes"):
        ran(data, tmp_path, "pocket")
    with pytest.raises(RecipeError, match="did you mean 'other'"):
        ran(data, tmp_path, "othr")


@pytest.mark.parametrize(
    ("train", "method"),
    [
        ({"objectives": [{"do": "divergence.forward_kl", "on": "answers", "teacher": "other"}]}, "logits"),
        ({"rollouts": {"on": "answers", "reward": {"do": "feedback.rate", "teacher": "other"}}}, "judge_or_reward"),
        ({"rollouts": {"on": "answers", "teacher": "other", "top_k": 4}}, "train_on_outputs"),
    ],
)
def test_a_teacher_that_training_asks_is_judged_by_what_is_taken_from_it(train, method, tmp_path):
    data = recipe(tmp_path)
    data["knowledge"]["answers"]["elicit"][0] = {"do": "labeling.answer", "teacher": "main"}
    data["teachers"]["other"] = {"backend": "pocket"}
    data["train"] |= train
    terms = terms_of(load_recipe(data))
    assert [t.method for t in terms.plan.by_name["other"]] == [method]
    with pytest.raises(RecipeError, match="asks this teacher as it goes"):
        ran(data, tmp_path, "other")


def test_a_line_to_reach_stays_as_an_evaluation(tmp_path):
    data = recipe(tmp_path)
    write_jsonl(tmp_path / "held.jsonl", sums(2, 50))
    data["evaluate"] = [
        {"do": "qa", "path": str(tmp_path / "held.jsonl"), "grader": {"do": "math.equal"}, "teacher": "other"}
    ]
    plan = terms_of(load_recipe(data), without=["other"]).plan
    assert [t.method for t in plan.by_name["other"]] == ["evaluate_only"]


def test_the_student_of_every_arm_is_asked_about(tmp_path):
    data = recipe(tmp_path)
    data["arms"] = {"ours": {}, "theirs": {"student": {"terms": {"record": "mistral.devstral2"}}}}
    terms = terms_of(load_recipe(data))
    assert len(terms.others) == 1
