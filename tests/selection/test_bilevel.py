"""Weights that a noise-robust loss learns (R52, SunGen): formulas against autograd, and planted noise."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from stillhouse.elicit.reweighting import bilevel
from stillhouse.records import Example, Lost, user
from stillhouse.selection.bilevel import PENALTY, SURENESS, hypergradient, learned_weights, outer_loss
from stillhouse.selection.features import area
from stillhouse.selection.quality import drawn

F64 = torch.float64


@pytest.mark.parametrize("classes", [2, 4])
def test_the_hypergradient_is_autograds_through_one_inner_step(classes: int) -> None:
    """R52: weighted cross-entropy inside, reversed cross-entropy outside, in float64."""
    made = torch.Generator().manual_seed(classes)
    inputs = torch.randn(9, 5, generator=made, dtype=F64)
    labels = torch.randint(classes, (9,), generator=made)
    start = torch.randn(classes, 5, generator=made, dtype=F64).requires_grad_()
    theta = torch.rand(9, generator=made, dtype=F64).requires_grad_()
    inner = (theta * cross_entropy(inputs @ start.T, labels, reduction="none")).mean()
    inner = inner + PENALTY / (2 * len(inputs)) * start.square().sum()
    (slope,) = torch.autograd.grad(inner, start, create_graph=True)
    after = start - 0.7 * slope
    told = log_softmax(SURENESS * one_hot(labels, classes).to(F64), -1)
    outer = -((inputs @ after.T).softmax(-1) * told).sum(-1).mean()
    (wanted,) = torch.autograd.grad(outer, theta)

    arrays = (inputs.numpy(), one_hot(labels, classes).to(F64).numpy())
    got = hypergradient(start.detach().numpy(), *arrays, theta.detach().numpy(), rate=0.7)
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-10, atol=1e-14)
    assert outer_loss(after.detach().numpy(), *arrays) == pytest.approx(outer.item(), rel=1e-12)


def test_the_outer_loss_by_hand() -> None:
    """R52: with two classes -log softmax is log(1 + e^-10) for the label and 10 more for the other."""
    sure = np.array([[0.0], [np.log(3.0)]])  # the second class has a probability of 3/4
    small = np.log1p(np.exp(-10.0))
    wanted = 0.25 * small + 0.75 * (10 + small)
    assert outer_loss(sure, np.ones((1, 1)), np.array([[1.0, 0.0]])) == pytest.approx(wanted, rel=1e-12)


def noisy(seed: int, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    right = draw.integers(0, 2, 200)
    rows = draw.normal(size=(2, 40))[right] * 0.5 + draw.normal(size=(200, 40))
    flipped = draw.random(200) < share
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.where(flipped, 1 - right, right), flipped


@pytest.mark.parametrize("seed", range(3))
def test_planted_noise_loses_its_weight(seed: int) -> None:
    """R52: a fifth of the labels are wrong; without any that are, all keep theirs."""
    rows, labels, flipped = noisy(seed, 0.2)
    weights = learned_weights(rows, labels)
    found = area(weights, list(~flipped))
    assert found is not None and found > 0.9
    assert weights.min() >= 0 and weights.max() <= 1
    assert learned_weights(*noisy(seed, 0.0)[:2]).mean() > 0.98


def test_labelled_texts_get_their_weight_in_a_column() -> None:
    """R52: texts of two kinds, two of forty under the wrong label; one label alone is no task."""
    texts = [("calm sea and sun" if n % 2 else "loud road and dust") + f" number {n}" for n in range(40)]
    said = [("sea", "road")[(n + 1) % 2 if n not in (3, 6) else n % 2] for n in range(40)]
    rows = [Example(str(n), user(text), label) for n, (text, label) in enumerate(zip(texts, said, strict=True))]
    weights = [one.columns["weight"] for one in bilevel(rows) if isinstance(one, Example)]
    assert max(weights[3], weights[6]) < 0.1
    assert min(weight for n, weight in enumerate(weights) if n not in (3, 6)) == 1.0
    assert {each.reason for each in bilevel(rows[:1]) if isinstance(each, Lost)} == {"one_class"}


def test_a_draw_by_weights_draws_by_weights() -> None:
    """R52: the heavier is drawn as often as its weight says; nought never."""
    rows = [Example(str(n), user("x"), "y", columns={"weight": w}) for n, w in enumerate((3.0, 1.0, 0.0))]
    rows.append(Example("none", user("x"), "y"))
    counts = Counter(one.id for seed in range(2000) for one, why in drawn(rows, keep=1, seed=seed) if why is None)
    assert counts["0"] / 2000 == pytest.approx(0.75, abs=0.04)
    assert counts["0"] + counts["1"] == 2000
    assert [why for _, why in drawn(rows, keep=3)] == [None, None, "not_drawn", "no_score"]
