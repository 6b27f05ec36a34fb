"""Objectives of students that encode, by hand and against torch, in float64 (J9, R55, R57)."""

import math

import pytest
import torch
from torch import tensor
from torch.nn.functional import kl_div

from stillhouse.errors import RecipeError
from stillhouse.objectives import embedding

F64 = torch.float64
QUERIES = tensor([[2.0, 0.0], [0.0, 0.5]], dtype=F64)  # two records, of unequal length on purpose
PASSAGES = tensor([[1.0, 0.0], [0.0, 3.0], [0.0, 1.0], [3.0, 4.0]], dtype=F64)
GROUP = tensor([0, 0, 1, 1])
SCORES = tensor([1.0, 0.0, 0.0, 2.0], dtype=F64)
APART = tensor([0, 1, 2, 3])
ONE = torch.ones(2, dtype=F64)


def test_in_batch_by_hand():
    """J9, R55: cosines of query 0 are 1, 0, 0, .6 with the first right; of query 1 0, 1, 1, .8 with the last."""
    got = embedding.in_batch(QUERIES, PASSAGES, GROUP, SCORES, APART, ONE, temperature=0.5)
    first = -math.log(math.exp(2) / (math.exp(2) + 2 + math.exp(1.2)))
    second = -math.log(math.exp(1.6) / (1 + 2 * math.exp(2) + math.exp(1.6)))
    assert got.item() == pytest.approx(first + second, rel=1e-12)
    weighed = embedding.in_batch(
        QUERIES, PASSAGES, GROUP, SCORES, APART, tensor([0.0, 2.0], dtype=F64), temperature=0.5
    )
    assert weighed.item() == pytest.approx(2 * second, rel=1e-12)


def test_the_right_passage_is_no_negative_of_itself():
    """The passage of another record with the same text as the right one does not count."""
    passages = torch.cat([PASSAGES[:3], PASSAGES[:1]])
    got = embedding.in_batch(QUERIES[:1], passages[:4], tensor([0, 0, 0, 0]), SCORES.flip(0) * 0 + tensor([1.0, 0, 0, 0]),
                             tensor([7, 1, 2, 7]), ONE[:1], temperature=1.0)  # fmt: skip
    assert got.item() == pytest.approx(-math.log(math.e / (math.e + 2)), rel=1e-12)


def test_margin_mse_by_hand():
    """J9: dot products 2 and 0 against scores 1 and 0; .5 and 2 against 0 and 2."""
    got = embedding.margin_mse(QUERIES, PASSAGES, GROUP, SCORES, ONE)
    assert got.item() == pytest.approx((2 - 1) ** 2 + (1.5 - 2) ** 2, rel=1e-12)


def test_vectors_of_a_teacher_by_hand():
    """The mean over a record's texts; equal directions cost nothing, equal vectors nothing at all."""
    texts, group = torch.cat([QUERIES, PASSAGES[:1]]), tensor([0, 1, 0])
    theirs = tensor([[0.0, 1.0], [0.0, 9.0], [1.0, 0.0]], dtype=F64)
    assert embedding.cosine(texts, theirs, group, ONE).item() == pytest.approx(0.5, rel=1e-12)
    assert embedding.squared(texts, theirs, group, ONE).item() == pytest.approx(2.5 / 2 + 8.5**2 / 2, rel=1e-12)
    assert embedding.squared(texts, texts, group, ONE).item() == 0.0
    with pytest.raises(RecipeError, match=r"embedding\.similarity_kl"):
        embedding.cosine(texts, theirs[:, :1], group, ONE)


def test_similarities_of_any_width():
    """R57: against torch's own divergence, with a teacher of three numbers; zero where both say the same."""
    theirs = torch.randn(6, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    queries, passages = tensor([0, 3]), tensor([1, 2, 4, 5])
    own = torch.nn.functional.normalize(QUERIES) @ torch.nn.functional.normalize(PASSAGES).T / 0.1
    unit = torch.nn.functional.normalize(theirs)
    log_p = (unit[queries] @ unit[passages].T / 0.1).log_softmax(-1)
    got = embedding.similarity_kl(QUERIES, PASSAGES, theirs, queries, passages, ONE, temperature=0.1)
    expected = kl_div(own.log_softmax(-1), log_p, reduction="sum", log_target=True)
    assert got.item() == pytest.approx(expected.item(), rel=1e-12)
    same = torch.cat([QUERIES[:1], PASSAGES[:2], QUERIES[1:], PASSAGES[2:]])
    assert embedding.similarity_kl(QUERIES, PASSAGES, same, queries, passages, ONE).item() == pytest.approx(
        0, abs=1e-12
    )
