"""P26: byte alignment of two tokenizations."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.errors import RecipeError
from stillhouse.kernels.alignment import aligned_spans, first_ids, matched_ids, token_bytes


def test_spans_by_hand():
    student, teacher = [b"ab", b"c", b"de", b"f"], [b"a", b"bc", b"d", b"e", b"f"]
    spans = aligned_spans(student, teacher)
    assert [(student[s], teacher[t]) for s, t in spans] == [
        ([b"ab", b"c"], [b"a", b"bc"]),
        ([b"de"], [b"d", b"e"]),
        ([b"f"], [b"f"]),
    ]


def test_half_characters_stay_together():
    """A character of three bytes cut 1 + 2 on one side and 2 + 1 on the other is one span."""
    euro = "€".encode()
    assert len(euro) == 3
    spans = aligned_spans([b"x", euro[:1], euro[1:]], [b"x", euro[:2], euro[2:]])
    assert spans == [(slice(0, 1), slice(0, 1)), (slice(1, 3), slice(1, 3))]


def test_tokens_of_no_bytes_follow_the_run_before():
    assert aligned_spans([b"a", b"", b"b"], [b"a", b"b", b""]) == [
        (slice(0, 2), slice(0, 1)),
        (slice(2, 3), slice(1, 3)),
    ]


def test_different_texts_are_refused():
    with pytest.raises(RecipeError, match="different texts"):
        aligned_spans([b"ab"], [b"ac"])


cuts = st.lists(st.integers(0, 12), max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=12), cuts, cuts)
def test_spans_cover_everything_once_and_are_shortest(text, left, right):
    def cut(places):
        edges = sorted({min(p, len(text)) for p in places} | {0, len(text)})
        return [text[a:b] for a, b in pairwise(edges)]

    student, teacher = cut(left), cut(right)
    spans = aligned_spans(student, teacher)
    assert [i for s, _ in spans for i in range(s.start, s.stop)] == list(range(len(student)))
    assert [i for _, t in spans for i in range(t.start, t.stop)] == list(range(len(teacher)))
    for s, t in spans:
        assert b"".join(student[s]) == b"".join(teacher[t])
        inner = {len(b"".join(student[s][:i])) for i in range(1, s.stop - s.start)}
        assert not inner & {len(b"".join(teacher[t][:i])) for i in range(1, t.stop - t.start)}


def test_maps_between_vocabularies():
    student, teacher = [b"", b"a", b"b", b"ab", b"1"], [b"ab", b"123", b"", b"zz", b"a"]
    assert matched_ids(student, teacher).tolist() == [3, -1, -1, -1, 1]
    assert first_ids(student, teacher).tolist() == [3, 4, -1, -1, 1]


def real(name):
    """A byte-level tokenizer and one of SentencePiece's kind with byte fallback."""
    data = os.environ.get("STILLHOUSE_TEST_DATA")
    if not data:
        pytest.skip("STILLHOUSE_TEST_DATA is not set: no real tokenizers to align")
    transformers = pytest.importorskip("transformers")
    if name == "stories260K":
        return transformers.AutoTokenizer.from_pretrained(Path(data) / name / "hf")
    tokenizers = pytest.importorskip("tokenizers")
    files = [str(Path(data) / "gpt2-tokenizer" / f"gpt2_{part}") for part in ("vocab.json", "merges.txt")]
    backend = tokenizers.ByteLevelBPETokenizer(*files)._tokenizer
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


@pytest.mark.parametrize("name", ["gpt2", "stories260K"])
def test_real_tokenizers_spell_any_text(name):
    """Round trip on digits, accents, emoji and other scripts; byte fallback included."""
    tokenizer = real(name)
    spelled = token_bytes(tokenizer)
    for text in ["Once upon a time, 2048 dogs.", "naïve café", "emoji 🙂🙃 done", "漢字 and кириллица\n\ttab"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert b"".join(spelled[i] for i in ids).decode().strip(" ") == text


def test_two_real_tokenizers_align():
    tokens = []
    for name in ("gpt2", "stories260K"):
        tokenizer = real(name)
        spelled = token_bytes(tokenizer)
        tokens.append(
            [spelled[i] for i in tokenizer("upon a time there was Lily 🙂.", add_special_tokens=False)["input_ids"]]
        )
    if b"".join(tokens[1]).startswith(b" "):  # SentencePiece puts a space before the text
        tokens[0].insert(0, b" ")
    spans = aligned_spans(*tokens)
    assert len(spans) >= 7
    assert len(spans) < min(len(tokens[0]), len(tokens[1]))
