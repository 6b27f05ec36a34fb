import os
from pathlib import Path

import numpy as np
import pytest

from stillhouse.records import Seed, user
from stillhouse.selection.diversity import by_score, facility_location, farthest_first, k_center, most_typical

DATA = os.environ.get("STILLHOUSE_TEST_DATA")
MODEL = str(Path(DATA or "") / "potion-base-4M-int8")
needs_data = pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")


def unit(*angles: float) -> np.ndarray:
    return np.stack([np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))], axis=1).astype(np.float32)


def test_farthest_first_by_hand() -> None:
    """R60: 0, 5, 60 and 170 degrees: 60 is nearest to the mean, 170 farthest from it, then 0 is farther than 5."""
    assert farthest_first(unit(0, 5, 60, 170), 3) == [2, 3, 0]
    assert sorted(farthest_first(unit(0, 1), 5)) == [0, 1]  # no more than there are
    assert farthest_first(unit(0), 0) == []


def test_most_typical_equals_the_plain_greedy_choice() -> None:
    """R15: lazy gains give what recomputing every gain gives."""
    rows = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similar, covered, plain = np.clip(rows @ rows.T, 0, None), np.zeros(60), []
    for _ in range(8):
        gains = np.maximum(similar, covered).sum(axis=1) - covered.sum()
        gains[plain] = -1
        plain.append(int(gains.argmax()))
        covered = np.maximum(covered, similar[plain[-1]])
    assert most_typical(rows, 8) == plain


@needs_data
def test_selectors_cover_topics_before_they_repeat_one() -> None:
    pytest.importorskip("model2vec")
    texts = [
        "How do I bake bread?", "How can I bake good bread?", "What is the best way of baking bread?",
        "Who won the football match?", "Explain quantum mechanics.",
    ]  # fmt: skip
    seeds = [Seed(str(i), user(text)) for i, text in enumerate(texts)]
    for selector in (k_center, facility_location):
        kept = {int(record.id) for record, why in selector(iter(seeds), model=MODEL, keep=3) if why is None}
        assert len(kept) == 3
        assert {3, 4} <= kept
        assert len(kept & {0, 1, 2}) == 1


@needs_data
def test_by_score_never_invents_a_score_and_skips_what_it_has() -> None:
    """R15 (DEITA): product of two columns, cosine below the threshold, a missing score is missing."""
    pytest.importorskip("model2vec")
    rows = [
        ("How do I bake bread?", {"complexity": 2.0, "quality": 3.0}),
        ("How do I bake bread at home?", {"complexity": 3.0, "quality": 3.0}),
        ("Who won the football match?", {"complexity": 1.0, "quality": 1.0}),
        ("Explain quantum mechanics.", {"complexity": 6.0}),
        ("Name a fruit.", {"complexity": 0.5, "quality": 0.5}),
    ]
    seeds = [Seed(str(i), user(text), None, dict(columns)) for i, (text, columns) in enumerate(rows)]
    assert [why for _, why in by_score(seeds, model=MODEL, keep=2, threshold=0.8)] == [
        "same_meaning", None, None, "no_score", "low_score",
    ]  # fmt: skip
