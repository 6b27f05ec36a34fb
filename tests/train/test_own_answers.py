"""The student's own answers: drawn together with a teacher, kept and shown again, judged, beside the record's own."""

import copy
import json

import numpy as np
import pytest
import torch

from stillhouse.check import check
from stillhouse.errors import RecipeError
from stillhouse.objectives import divergence, minillm, ranking, reinforcement
from stillhouse.phases import _judged
from stillhouse.recipe import load_recipe
from stillhouse.records import Example, Lost, Origin, user
from stillhouse.train.replay import Memory
from stillhouse.train.rollout import Adaptive, Rollouts
from stillhouse.train.student import Student
from stillhouse.train.together import generate_together
from stillhouse.train.trainer import Term, train

HOW = {"max_new_tokens": 12, "eos_ids": [2], "pad_id": 0}
REVERSE = Term("divergence.reverse_kl", divergence.reverse_kl, "rollouts", teacher="t")


def run(student, term, examples, out, *, teachers=None, **more):
    arguments = {"max_steps": 3, "learning_rate": 0.01, "per_device_train_batch_size": 4, "logging_steps": 1}
    arguments |= more.pop("arguments", {})
    return train(
        student, [term], {"x": examples}, teachers=teachers or {}, arguments=arguments, out=out, seed=0, **more
    )


def probabilities(model, prompt, ids):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0]
    return logits.softmax(-1)[len(prompt) - 1 : -1]


@pytest.mark.parametrize("how", [{"share": 0.2}, {"share": 0.0}, {"top_k": 3}, {"top_k": 1000}])
def test_tokens_are_drawn_with_the_chance_that_is_told(how, student, teacher):
    """R26: MiniLLM's mixture and the speculative rule, against both models' own probabilities of each token."""
    prompts = [[1, 3, 9], [1, 3, 9, 12, 15], [1, 4]]
    found = generate_together(student.model, teacher.model, prompts, prompts, seeds=[1, 2, 3], **HOW, **how)
    for prompt, (ids, logprobs) in zip(prompts, found):
        q, p = probabilities(student.model, prompt, ids), probabilities(teacher.model, prompt, ids)
        if "share" in how:
            expected = how["share"] * p + (1 - how["share"]) * q
        else:
            allowed = torch.zeros_like(p).scatter_(-1, p.topk(min(how["top_k"], p.shape[-1]), -1).indices, 1.0)
            expected = q * allowed + (q * (1 - allowed)).sum(-1, keepdim=True) * p
        assert torch.allclose(expected.sum(-1), torch.ones(len(ids)), atol=1e-5)
        said = expected.gather(-1, torch.tensor(ids)[:, None])[:, 0].log()
        assert np.allclose(logprobs, said.numpy(), atol=1e-4)


def test_the_mixture_draws_what_it_says_it_draws(student, teacher):
    """Frequencies of the first token over many draws, within three standard errors."""
    draws = 3000
    prompts = [[1, 3, 9]] * draws
    how = {**HOW, "max_new_tokens": 1}
    found = generate_together(
        student.model, teacher.model, prompts, prompts, seeds=list(range(draws)), share=0.5, **how
    )
    first = np.array([ids[0] for ids, _ in found])
    mixed = 0.5 * (probabilities(student.model, prompts[0], [5]) + probabilities(teacher.model, prompts[0], [5]))[0]
    token = int(mixed.argmax())
    chance = float(mixed[token])
    assert abs((first == token).mean() - chance) < 3 * (chance * (1 - chance) / draws) ** 0.5


@pytest.mark.parametrize("told", [{"teacher_share": 0.2}, {"top_k": 4}])
def test_a_teacher_takes_part_in_sampling(told, student, teacher, tools, tmp_path):
    term = REVERSE if "top_k" in told else Term("minillm.minillm", minillm.minillm, "rollouts", teacher="t")
    rollouts = Rollouts("x", max_new_tokens=6, teacher="t", **told)
    done = run(student, term, tools.examples(6), tmp_path, teachers={"t": teacher}, rollouts=rollouts)
    assert all(np.isfinite(row["loss"]) for row in done.history)
    with pytest.raises(RecipeError, match="give the teacher and one of the two"):
        Rollouts("x", teacher="t")


def test_answers_that_were_kept_come_back_and_a_stopped_training_remembers_them(student, teacher, tools, tmp_path):
    """R28, DistiLLM: the same weights whether or not the training was stopped, with replay and an adaptive share."""
    rollouts = Rollouts("x", fraction=0.5, max_new_tokens=5, replay=6, adaptive=Adaptive(2, every=2, tolerance=-9.0))
    ends = []
    for name in ("a", "b"):
        for stop in [100] if name == "a" else [2, 2]:
            own = Student(copy.deepcopy(student.model), student.tokenizer)
            run(
                own, REVERSE, tools.examples(8), tmp_path / name, teachers={"t": teacher}, rollouts=rollouts,
                arguments={"max_steps": 6, "save_steps": stop, "save_total_limit": 5},
            )  # fmt: skip
            if name == "b" and (last := tmp_path / "b" / "checkpoint-6" / "trainer_state.json").is_file():
                last.unlink()
        ends.append(dict(own.model.named_parameters()))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    state = json.loads((tmp_path / "b" / "checkpoint-4" / "rollouts-0.json").read_text())
    assert len(state["kept"]) == 6
    assert state["fraction"] == pytest.approx(0.6)  # measured at 0 and at 2, where it had risen by more than -9


def test_an_answer_comes_back_more_often_towards_the_end(student, tools):
    from stillhouse.train.batch import rendered

    branch = rendered("x", tools.examples(40), student.tokenizer, max_length=None)
    memory = Memory(Rollouts("x", replay=100), seed=0)
    items = [item for place in range(len(branch)) for item in branch.items(place)]
    assert memory.parted(branch, items, 9, 10) == (items, [])  # nothing is kept yet
    from dataclasses import replace

    memory.keep([replace(item, own=True) for item in items])
    shares = [len(memory.parted(branch, items, step, 10)[1]) / 40 for step in (0, 5, 10)]
    assert shares[0] == 0
    assert 0.2 < shares[1] < 0.8
    assert shares[2] == 1


def test_the_records_own_answer_stands_beside_the_students(student, tools, tmp_path):
    """R38, SPIN inside training: the known answer against the student's own; at the first step nobody is preferred."""
    term = Term("ranking.dpo", ranking.dpo, "rollouts")
    done = run(student, term, tools.examples(6), tmp_path, rollouts=Rollouts("x", max_new_tokens=5, beside=True))
    assert done.history[0]["loss"] == pytest.approx(np.log(2), rel=1e-4)
    assert done.history[-1]["loss"] < np.log(2)


def test_an_advantage_is_what_an_answer_earns_above_the_windows_mean(student, tools, tmp_path):
    """Constant rewards teach nothing: the gradient of the clipped surrogate is 0."""
    from stillhouse.graders import Grade

    term = Term("reinforcement.policy_gradient", reinforcement.policy_gradient, "rollouts")
    flat = Rollouts("x", max_new_tokens=5, reward=lambda texts, _: [Grade(0.7, "flat") for _ in texts])
    done = run(student, term, tools.examples(4), tmp_path, rollouts=flat)
    assert max(row["grad_norm"] for row in done.history) < 1e-6
    assert done.history[0]["reward"] == pytest.approx(0.7)


def test_a_judges_column_is_the_reward_and_an_unread_verdict_is_none():
    def rate(examples):
        for example in examples:
            if "lost" in example.response:
                yield Lost(example.id, "verdict_missing")
                continue
            for score in (1.0, 4.0):
                yield Example(
                    "r", example.prompt, example.response, columns={"help": score}, origin=Origin((example.id,))
                )

    asked = [Example("a", user("q"), "fine"), Example("b", user("q"), "lost")]
    assert _judged(rate, (), "help", asked) == [2.5, None]


def test_check_says_what_rewards_and_rollouts_need(tmp_path):
    (tmp_path / "s.jsonl").write_text('{"prompt": "a"}\n')

    def refused(rollouts, do="reinforcement.group_advantage", **more):
        recipe = {
            "name": "r", "teachers": {"main": {"backend": "pocket"}, "far": {"backend": "scripted"}},
            "knowledge": {"x": {"seeds": {"do": "file", "path": "s.jsonl"}}}, "student": {"model": "pocket"},
            "train": {"objectives": [{"do": do, "on": "rollouts", **more}], "rollouts": {"on": "x", **rollouts}},
        }  # fmt: skip
        with pytest.raises(RecipeError) as error:
            check(load_recipe(recipe, folder=tmp_path))
        return str(error.value)

    assert "set fraction to 1 and samples to 2 or more" in refused({"reward": {"do": "math.equal"}})
    assert "learn from rollouts with a reward" in refused({})
    assert "needs `teacher:`" in refused({"samples": 2, "reward": {"do": "feedback.rate"}})
    assert "cannot give its logits" in refused({"teacher": "far", "top_k": 5})
    kl = {"do": "divergence.reverse_kl", "teacher": "main"}
    assert "give the teacher and one of the two" in refused({"teacher": "main"}, **kl)
    assert "leave out top_k and replay" in refused({"replay": 8}, do="reinforcement.sampled_reverse_kl", teacher="main")
