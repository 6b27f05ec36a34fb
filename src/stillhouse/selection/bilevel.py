"""Weights of labelled texts that a noise-robust loss learns, through one step of the classifier that they train (SunGen, R52).

Legend: N texts, D dimensions of a text's vector, K classes. `weights_KD` is a softmax classifier without a constant: give the
vectors one. What it minimises (inner) is the mean of weight x cross-entropy and a small penalty; what the weights minimise
(outer) is the reversed cross-entropy of the classifier after that step on the same labelled texts, all counted once.
"""

from collections.abc import Callable

import numpy as np

__all__: list[str] = []

PENALTY = (
    0.1  # half of it over N times the squared weights is added: what knows every word by heart cannot doubt a label
)
SURENESS = 10.0  # of a label in the outer loss: log softmax of a one-hot times this, finite where a log of 0 is not


def learned_weights(
    rows_ND: np.ndarray,
    labels_N: np.ndarray,
    *,
    updates: int = 100,
    inner_steps: int = 50,
    inner_rate: float = 1.5,
    outer_rate: float = 0.05,
) -> np.ndarray:
    """weights_N in [0, 1], from 1 for all.

    Before each of `updates` the classifier goes on for `inner_steps` steps of gradient descent under the weights as they are;
    then they take one step of Adam along the hypergradient and are kept within 0 and 1.
    """
    inputs_ND = np.hstack([rows_ND.astype(np.float64), np.ones((len(rows_ND), 1))])
    target_NK = np.eye(int(labels_N.max()) + 1)[labels_N]
    weights_N = np.ones(len(inputs_ND))
    weights_KD = np.zeros((target_NK.shape[1], inputs_ND.shape[1]))
    mean_N, square_N = np.zeros_like(weights_N), np.zeros_like(weights_N)
    for update in range(1, updates + 1):
        for _ in range(inner_steps):
            weights_KD = _step(weights_KD, inputs_ND, target_NK, weights_N, inner_rate)
        slope_N = hypergradient(weights_KD, inputs_ND, target_NK, weights_N, rate=inner_rate)
        mean_N = 0.9 * mean_N + 0.1 * slope_N
        square_N = 0.999 * square_N + 0.001 * slope_N**2
        moved_N = (mean_N / (1 - 0.9**update)) / (np.sqrt(square_N / (1 - 0.999**update)) + 1e-12)
        weights_N = np.clip(weights_N - outer_rate * moved_N, 0.0, 1.0)
    return weights_N


def trained(
    rows_ND: np.ndarray, labels_N: np.ndarray, weights_N: np.ndarray, *, steps: int = 3000, rate: float = 1.5
) -> Callable[[np.ndarray], np.ndarray]:
    """What the classifier says after that many steps on labels that weigh so much, in the mean 1: rows_MD -> chances_MK."""
    inputs_ND = np.hstack([rows_ND.astype(np.float64), np.ones((len(rows_ND), 1))])
    target_NK = np.eye(int(labels_N.max()) + 1)[labels_N]
    weights_KD = np.zeros((target_NK.shape[1], inputs_ND.shape[1]))
    for _ in range(steps):
        weights_KD = _step(weights_KD, inputs_ND, target_NK, weights_N / weights_N.mean(), rate)
    return lambda rows_MD: _chances(weights_KD, np.hstack([rows_MD.astype(np.float64), np.ones((len(rows_MD), 1))]))


def hypergradient(
    weights_KD: np.ndarray, inputs_ND: np.ndarray, target_NK: np.ndarray, weights_N: np.ndarray, *, rate: float
) -> np.ndarray:
    """d outer(classifier after one inner step) / d weights_N, exactly: -rate / N times the product of the two gradients."""
    after_KD = _step(weights_KD, inputs_ND, target_NK, weights_N, rate)
    outer_KD = _outer_gradient(after_KD, inputs_ND, target_NK)
    wrong_NK = _chances(weights_KD, inputs_ND) - target_NK
    return -rate / len(inputs_ND) * ((inputs_ND @ outer_KD.T) * wrong_NK).sum(1)


def outer_loss(weights_KD: np.ndarray, inputs_ND: np.ndarray, target_NK: np.ndarray) -> float:
    """Reversed cross-entropy: the mean of -sum over classes of p log softmax(10 x one-hot), bounded however wrong p is."""
    return float((_chances(weights_KD, inputs_ND) * _costs(target_NK)).sum(1).mean())


def _costs(target_NK: np.ndarray) -> np.ndarray:
    told_NK = SURENESS * target_NK
    return np.asarray(np.log(np.exp(told_NK).sum(1, keepdims=True)) - told_NK)


def _outer_gradient(weights_KD: np.ndarray, inputs_ND: np.ndarray, target_NK: np.ndarray) -> np.ndarray:
    chances_NK, costs_NK = _chances(weights_KD, inputs_ND), _costs(target_NK)
    slope_NK = chances_NK * (costs_NK - (chances_NK * costs_NK).sum(1, keepdims=True))
    return np.asarray(slope_NK.T @ inputs_ND / len(inputs_ND))


def _step(
    weights_KD: np.ndarray, inputs_ND: np.ndarray, target_NK: np.ndarray, weights_N: np.ndarray, rate: float
) -> np.ndarray:
    wrong_NK = weights_N[:, None] * (_chances(weights_KD, inputs_ND) - target_NK)
    return np.asarray(weights_KD - rate / len(inputs_ND) * (wrong_NK.T @ inputs_ND + PENALTY * weights_KD))


def _chances(weights_KD: np.ndarray, inputs_ND: np.ndarray) -> np.ndarray:
    logits_NK = inputs_ND @ weights_KD.T
    grown_NK = np.exp(logits_NK - logits_NK.max(1, keepdims=True))
    return np.asarray(grown_NK / grown_NK.sum(1, keepdims=True))
