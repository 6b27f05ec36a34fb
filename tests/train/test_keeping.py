"""Not forgetting: the spring to the start, and the gate that says what was lost."""

import copy

import pytest

from stillhouse.errors import RunFailed
from stillhouse.evaluate.regression import gates
from stillhouse.objectives import keeping, supervised
from stillhouse.recipe import build
from stillhouse.scores import broken
from stillhouse.train.student import Student, load_student, save_student
from stillhouse.train.trainer import Term, train

CE = Term("supervised.cross_entropy", supervised.cross_entropy, "x")
SPRING = Term("keeping.l2_to_start", keeping.l2_to_start, "x", 5.0)


def run(student, terms, examples, out, **arguments):
    given = {"max_steps": 2, "learning_rate": 0.1, "per_device_train_batch_size": 4, "logging_steps": 1, "optim": "sgd",
             "lr_scheduler_type": "constant", "max_grad_norm": 1e9} | arguments  # fmt: skip
    return train(student, terms, {"x": examples}, teachers={}, arguments=given, out=out, seed=0)


@pytest.mark.parametrize("pieces", [1, 4])
def test_the_spring_is_the_squared_distance_however_a_step_is_cut(pieces, student, tools, tmp_path):
    """After one SGD step of size 0.1 along g the distance is 0.1 |g|, squared; 0 at the first."""
    cut = {"per_device_train_batch_size": 4 // pieces, "gradient_accumulation_steps": pieces}
    done = run(student, [CE, SPRING], tools.examples(4), tmp_path, **cut)
    first, second = (row["loss/keeping.l2_to_start on x"] for row in done.history)
    assert first == 0
    assert second == pytest.approx((0.1 * done.history[0]["grad_norm"]) ** 2, rel=1e-3)


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_it_keeps_a_student_near_its_start(lora, student, tools, tmp_path):
    folder, moved = save_student(student, tmp_path / "base"), []
    for name, terms in (("free", [CE]), ("held", [CE, SPRING])):
        own = load_student(folder, lora=lora)
        before = copy.deepcopy(own.model.state_dict())
        run(own, terms, tools.examples(8), tmp_path / name, max_steps=10, learning_rate=0.05)
        moved.append(sum(float((v - before[k]).square().sum()) for k, v in own.model.state_dict().items()))
    assert 0 < moved[1] < 0.5 * moved[0]


def test_replay_and_closeness_to_the_old_model_keep_what_was_known(student, tools, tmp_path):
    """Learning B from a student that knows A: what it says of A gets worse, and less so with replay and a divergence."""
    from stillhouse.objectives import divergence

    old, new = tools.examples(6, seed=1, longest=12), tools.examples(6, seed=2, longest=12)
    args = {"max_steps": 60, "learning_rate": 0.02, "optim": "adamw_torch", "per_device_train_batch_size": 6}
    run(student, [CE], old, tmp_path / "a", **args)
    losses = {}
    replay = Term("supervised.cross_entropy", supervised.cross_entropy, "old", 0.5)
    close = Term("divergence.forward_kl", divergence.forward_kl, "old", 0.5, teacher="reference")
    for name, terms in {"plain": [CE], "kept": [CE, replay, close]}.items():
        own = Student(copy.deepcopy(student.model), student.tokenizer)
        data = {"x": new, "old": old}
        given = {"logging_steps": 1, **args, "max_steps": 30}
        train(own, terms, data, teachers={}, arguments=given, out=tmp_path / name, seed=0)
        losses[name] = run(own, [CE], old, tmp_path / f"{name}-look", max_steps=1, learning_rate=0.0).history[0]["loss"]
    assert losses["kept"] < 0.7 * losses["plain"]


def comparison(task, arm, difference, half, against="base"):
    return {
        "task": task,
        "arm": arm,
        "against": against,
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
    }


def test_a_gate_tells_lost_from_unclear_from_held():
    """O5, in the direction in which each task is better."""
    tasks = [{"task": "qa", "higher_is_better": True}, {"task": "text", "higher_is_better": False}]
    rows = [
        comparison("qa", "a", -0.2, 0.1), comparison("qa", "b", -0.2, 0.3), comparison("qa", "c", 0.1, 0.05),
        comparison("qa", "a", 0.3, 0.1, against="b"), comparison("qa", "teacher:main", -0.9, 0.1),
        comparison("text", "a", 0.5, 0.1), comparison("text", "c", -0.5, 0.1),
    ]  # fmt: skip
    found = gates(tasks, rows, {"qa": 0.1, "text": 0.1})
    states = {(gate["task"], gate["arm"]): gate["state"] for gate in found}
    assert states == {
        ("qa", "a"): "lost", ("qa", "b"): "unclear", ("qa", "c"): "held", ("text", "a"): "lost", ("text", "c"): "held",
    }  # fmt: skip
    assert gates(tasks, rows, {}) == []


@pytest.mark.parametrize("on_loss", ["report", "fail"])
def test_a_lost_skill_is_said_and_can_fail_the_run(on_loss):
    entry = {"do": "qa", "path": "q", "grader": {"do": "math.equal"}, "may_lose": 0.1, "on_loss": on_loss}
    recipe = build({"name": "x", "knowledge": {"a": {"seeds": {"do": "file"}}}, "evaluate": [entry]}, "recipe")
    rows = [comparison("qa", "a", -0.2, 0.1)]
    scores = {"gates": gates([{"task": "qa", "higher_is_better": True}], rows, {"qa": 0.1})}
    said = r"arm a lost 0.200 on qa against the base student \[-0.300, -0.100\]; at most 0.1 was allowed"
    if on_loss == "fail":
        with pytest.raises(RunFailed, match=said):
            broken(scores, recipe)
    else:
        assert broken(scores, recipe)[0].startswith("arm a lost 0.200 on qa")
