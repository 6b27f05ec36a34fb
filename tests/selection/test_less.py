"""Influence by gradients and by likelihood, with the pocket student (LESS; R55)."""

import json
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.records import Example, user
from stillhouse.selection.influence import Meter, less, likely
from stillhouse.selection.lora_gradients import Gradients


def rows(count: int) -> list[Example]:
    """Half of them sums, half of them talk."""
    sums = [Example(f"s{n}", user(f"What is {n} plus {n}?"), f"The answer is {2 * n}.") for n in range(count)]
    talk = [
        Example(f"t{n}", user(f"Tell me a tale of a cat, number {n}."), "Once a cat sat by the sea and sang.")
        for n in range(count)
    ]
    return [row for pair in zip(sums, talk, strict=True) for row in pair]


def test_less_keeps_what_points_where_the_target_points(tmp_path: Path) -> None:
    target = tmp_path / "target.jsonl"
    target.write_text(
        "".join(
            json.dumps({"prompt": f"What is {n} plus {n + 1}?", "reference": f"The answer is {2 * n + 1}."}) + "\n"
            for n in range(20, 26)
        )
    )
    kept = [
        record.id for record, why in less(rows(8), model="pocket", path=target, share=0.5, warm_up=4) if why is None
    ]
    assert kept == [f"s{n}" for n in range(8)]


def test_gradients_are_of_length_one_and_agree_with_finite_differences() -> None:
    """The directional derivative along the gradient is its length: the loss falls as the gradient says."""
    import torch

    gradients = Gradients("pocket", rank=2, seed=0)
    pair = (user("What is 3 plus 4?"), "The answer is 7.")
    gradients.warmed_up([pair] * 3, 3, 1e-3)
    (unit_W,) = gradients.of([pair])
    assert float(unit_W.norm()) == pytest.approx(1.0, abs=1e-5)
    loss = gradients._loss(*pair)
    raw_W = torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, gradients._weights)])
    step, at = 1e-2, 0
    with torch.no_grad():
        for weight in gradients._weights:
            weight += step * unit_W[at : at + weight.numel()].reshape(weight.shape)
            at += weight.numel()
    moved = gradients._loss(*pair).item() - loss.item()
    assert moved == pytest.approx(step * float(raw_W.norm()), rel=0.1)


def test_what_cannot_be_scored_is_said(tmp_path: Path) -> None:
    target = tmp_path / "target.jsonl"
    target.write_text(json.dumps({"prompt": "What is 1 plus 1?", "reference": "2"}) + "\n")
    given = [*rows(1), Example("long", user("w " * 3000), "x")]
    assert [why for _, why in less(given, model="pocket", path=target, share=1.0, warm_up=0)] == [
        None,
        None,
        "no_score",
    ]
    with pytest.raises(RecipeError, match="share is 0"):
        list(less(given, model="pocket", path=target, share=0))


def test_r55_the_likeliest_answers_are_kept() -> None:
    given = [*rows(2), Example("odd", user("What is 1 plus 1?"), "zqx vfj kkw qqp")]
    losses = Meter("pocket").losses([(row.prompt, row.response) for row in given])
    best = sorted(range(5), key=lambda i: losses[i] or 0.0)[:3]
    assert [i for i, (_, why) in enumerate(likely(given, model="pocket", keep=3)) if why is None] == sorted(best)
    assert [why for _, why in likely(given, model="pocket", at_least=-100.0)] == [None] * 5
    assert [row.id for row, why in likely(given, model="pocket", keep=4) if why] == ["odd"]
