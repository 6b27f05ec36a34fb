"""PPO with a critic (Eq. 13, survey 4.8, R24, R32): by hand, against a loop in plain Python, and through the trainer."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import tensor

from stillhouse.check import check
from stillhouse.errors import RecipeError
from stillhouse.graders import Grade
from stillhouse.objectives.reinforcement import generalised_advantages, policy_gradient, ppo
from stillhouse.recipe import load_recipe
from stillhouse.train.plan import Plan
from stillhouse.train.rollout import Rollouts
from stillhouse.train.trainer import Term, train

F64 = torch.float64
SEQUENCE = tensor([0, 0, 0, 1])


def test_advantages_by_hand():
    """4.8: with discount .5 and trace .5 the third token's error counts .25 at the second and .0625 at the first."""
    rewards, values = tensor([0.0, 0.0, 1.0, -1.0], dtype=F64), tensor([0.5, 0.25, 0.5, 2.0], dtype=F64)
    got = generalised_advantages(rewards, values, SEQUENCE, discount=0.5, trace=0.5)
    third = 1 - 0.5
    second = (0.5 * 0.5 - 0.25) + 0.25 * third
    first = (0.5 * 0.25 - 0.5) + 0.25 * second
    assert got.tolist() == pytest.approx([first, second, third, -3.0], rel=1e-12)
    # no discount, whole trace: what is still earned, less what was expected
    whole = generalised_advantages(rewards, values, SEQUENCE, discount=1.0, trace=1.0)
    assert whole.tolist() == pytest.approx([0.5, 0.75, 0.5, -3.0], rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradients_are_those_of_a_plain_loop(seed):
    """Eq. 13, 4.8: every token, clipped on either side, with masked positions that hold garbage."""
    made = torch.Generator().manual_seed(seed)
    sizes, width = [3, 1, 4], 5
    sequence = torch.repeat_interleave(torch.arange(3), tensor(sizes))
    hidden, student, rollout, reference = (
        torch.randn(8, *shape, generator=made, dtype=F64) for shape in ((width,), (), (), ())
    )
    rewards, weight = torch.randn(3, generator=made, dtype=F64), tensor([1, 1, 1, 0, 1, 2, 1, 1], dtype=F64)
    module = ppo(student_width=width, kl_weight=0.3, discount=0.9, trace=0.7, clip=0.2, critic_weight=0.4).double()
    torch.nn.init.normal_(module.critic.weight, generator=made)
    hidden.requires_grad_()
    student.requires_grad_()
    loss = module(hidden, student, rollout, reference, sequence, rewards, weight)
    got = torch.autograd.grad(loss, (hidden, student, *module.parameters()))

    values = (hidden @ module.critic.weight[0]) + module.critic.bias[0]
    plain, at = torch.zeros((), dtype=F64), 0
    for number, size in enumerate(sizes):
        v = [float(x) for x in values[at : at + size]] + [0.0]
        ends = [0.0] * (size - 1) + [float(rewards[number])]
        r = [-0.3 * float(rollout[at + t] - reference[at + t]) + ends[t] for t in range(size)]
        for t in range(size):
            advantage = sum((0.9 * 0.7) ** (k - t) * (r[k] + 0.9 * v[k + 1] - v[k]) for k in range(t, size))
            ratio = (student[at + t] - rollout[at + t]).exp()
            kept = ratio.clamp(0.8, 1.2)
            actor = -torch.minimum(ratio * advantage, kept * advantage)
            critic = (values[at + t] - (advantage + v[t])) ** 2
            plain = plain + weight[at + t] * (actor + 0.4 * critic)
        at += size
    expected = torch.autograd.grad(plain, (hidden, student, *module.parameters()))
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)
    for mine, other in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)


def test_it_is_the_policy_gradient_where_the_critic_knows_nothing():
    """A fresh head says 0 everywhere: with a whole trace and no KL the advantage is the answer's reward."""
    student = tensor([-1.0, -2.0, -0.5, -3.0], dtype=F64, requires_grad=True)
    module = ppo(student_width=2, kl_weight=0.0, trace=1.0).double()
    rewards, ones = tensor([2.0, -1.0], dtype=F64), torch.ones(4, dtype=F64)
    loss = module(torch.randn(4, 2, dtype=F64), student, student.detach(), student.detach(), SEQUENCE, rewards, ones)
    expected = policy_gradient(student, student.detach(), rewards[SEQUENCE], ones)
    (got,), (wanted,) = torch.autograd.grad(loss, student), torch.autograd.grad(expected, student)
    torch.testing.assert_close(got, wanted)


def share_of_a(responses, references):
    return [Grade(said.count("a") / max(len(said), 1), "counted") for said in responses]


def fitted(student, tools, out, *, steps, epochs=1, **arguments):
    own = copy.deepcopy(student)
    torch.manual_seed(0)
    term = Term("reinforcement.ppo", ppo(student_width=own.model.config.hidden_size, kl_weight=0.01), "rollouts")
    told = {
        "max_steps": steps,
        "learning_rate": 0.01,
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        **arguments,
    }
    rollouts = Rollouts("x", samples=4, max_new_tokens=8, reward=share_of_a, epochs=epochs)
    done = train(own, [term], {"x": tools.examples(8)}, teachers={}, arguments=told, out=out, seed=0, rollouts=rollouts)
    return done.history, own, term.objective


def test_the_reward_rises(student, tools, tmp_path):
    history, _, learned = fitted(student, tools, tmp_path, steps=24, epochs=2)
    earned = [row["reward"] for row in history if "reward" in row]
    assert len(earned) == 12  # fresh answers every second step
    assert sum(earned[-3:]) > sum(earned[:3]) + 0.3
    assert learned.critic.weight.abs().sum() > 0


def test_several_steps_learn_from_the_same_answers_and_a_stopped_training_remembers_them(student, tools, tmp_path):
    """In the middle of a window's epochs as well: the same answers, and how likely they were when drawn."""
    whole, _, _ = fitted(student, tools, tmp_path / "whole", steps=6, epochs=3)
    saved = {"save_steps": 2, "save_total_limit": 5}
    fitted(student, tools, tmp_path / "cut", steps=6, epochs=3, **saved)
    (tmp_path / "cut" / "checkpoint-6" / "trainer_state.json").unlink()
    state = json.loads((tmp_path / "cut" / "checkpoint-4" / "rollouts-0.json").read_text())
    assert all(item["logprobs"] is not None for items in state["window"] for item in items)
    resumed, _, _ = fitted(student, tools, tmp_path / "cut", steps=6, epochs=3, **saved)
    assert [row["loss"] for row in resumed] == [row["loss"] for row in whole]
    assert [row["input_tokens"] for row in whole][:3] != [row["input_tokens"] for row in whole][3:]


def test_prompts_wait_while_their_answers_are_learned(student, tools):
    from stillhouse.train.terms import branches

    terms = [Term("p", policy_gradient, "rollouts")]
    found = branches(student.tokenizer, terms, {"x": tools.examples(8)}, Rollouts("x", epochs=3), None)
    plan = Plan(found, seed=0, length=12, size=2, window=2, again={"rollouts": 3})
    asked = [tuple(item.index for item in plan[number]["rollouts"]) for number in range(12)]
    assert asked[:2] == asked[2:4] == asked[4:6]
    assert asked[6:8] == asked[8:10]
    assert set(asked[0] + asked[1]).isdisjoint(asked[6] + asked[7])


def test_the_recipe_passes_check_and_its_knobs_are_refused(tmp_path: Path):
    """R24, R32: PPO from YAML."""
    loaded = load_recipe("skills/nlp/critic_rewards")
    assert check(loaded).arms[0]["objectives"] == ["supervised.cross_entropy", "reinforcement.ppo"]
    data = copy.deepcopy(loaded.data)
    data["train"][1]["objectives"][0]["gamma"] = 0.9
    with pytest.raises(RecipeError, match="gamma"):
        check(load_recipe(data, folder=loaded.folder))
    data = copy.deepcopy(loaded.data)
    data["train"][1]["rollouts"]["replay"] = 10
    with pytest.raises(RecipeError, match="no room for replay"):
        check(load_recipe(data, folder=loaded.folder))
