"""Texts as vectors, and a small classifier on them.

Legend: N texts, D dimensions, K groups.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from stillhouse.selection import embedding
from stillhouse.selection.tokens import words

__all__: list[str] = []


def rows_of(texts: Iterable[str], embedder: str | None, *, width: int = 1024) -> np.ndarray:
    """rows_ND float32 of length 1: a static embedder's, or without one, square roots of hashed counts of words and word pairs."""
    if embedder:
        model = embedding.load(embedder)
        blocks = [embedding.unit_rows(model, chunk) for chunk in embedding.chunks(texts)]
    else:
        blocks = [np.stack([_hashed(text, width) for text in chunk]) for chunk in embedding.chunks(texts)]
    return np.concatenate(blocks) if blocks else np.empty((0, 1), dtype=np.float32)


def _hashed(text: str, width: int) -> np.ndarray:
    row_D, tokens = np.zeros(width, dtype=np.float32), words(text)
    for token, count in Counter([*tokens, *(" ".join(pair) for pair in pairwise(tokens))]).items():
        code = zlib.crc32(token.encode())
        row_D[code % width] += (1 if code >> 31 else -1) * count**0.5
    length = float(np.linalg.norm(row_D))
    return row_D / length if length else row_D


def fitted(rows_ND: np.ndarray, labels_N: Sequence[bool], *, penalty: float = 1.0) -> np.ndarray:
    """weights_D1 of a logistic regression, the constant last: the mean log loss and `penalty` / (2 N) times their squares.

    Classes weigh the same, however rare one is.
    """
    from scipy.optimize import minimize

    inputs_ND = np.hstack([rows_ND.astype(np.float64), np.ones((len(rows_ND), 1))])
    sign_N = np.where(labels_N, 1.0, -1.0)
    share = np.mean(sign_N > 0)
    weight_N = np.where(sign_N > 0, 0.5 / share, 0.5 / (1 - share)) / len(sign_N)
    shrunk_D = np.full(inputs_ND.shape[1], penalty / len(sign_N))
    shrunk_D[-1] = 0.0

    def loss(weights_D: np.ndarray) -> tuple[float, np.ndarray]:
        margin_N = sign_N * (inputs_ND @ weights_D)
        wrong_N = 1 / (1 + np.exp(np.clip(margin_N, -500, 500)))
        value = float(weight_N @ np.logaddexp(0, -margin_N) + shrunk_D @ weights_D**2 / 2)
        return value, -(inputs_ND.T @ (weight_N * sign_N * wrong_N)) + shrunk_D * weights_D

    found = minimize(loss, np.zeros(inputs_ND.shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(found.x)


def chances(rows_ND: np.ndarray, weights_D1: np.ndarray) -> np.ndarray:
    """The probability of the first class for each row."""
    return np.asarray(1 / (1 + np.exp(-np.clip(rows_ND @ weights_D1[:-1] + weights_D1[-1], -500, 500))))


def area(scores_N: np.ndarray, labels_N: Sequence[bool]) -> float | None:
    """The area under the ROC curve: how often a positive stands above a negative, ties counting half; None without both."""
    labels = np.asarray(labels_N, dtype=bool)
    if labels.all() or not labels.any():
        return None
    difference = scores_N[labels][:, None] - scores_N[~labels][None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def groups_of(rows_ND: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The group of each row, by k-means from starting points far apart; at most `count` groups, empty ones among them."""
    from scipy.cluster.vq import kmeans2

    count = min(count, len(rows_ND))
    return np.asarray(kmeans2(rows_ND.astype(np.float64), count, minit="++", rng=np.random.default_rng(seed))[1])
