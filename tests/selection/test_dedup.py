import os
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from stillhouse.errors import RecipeError
from stillhouse.records import Example, Seed, user
from stillhouse.selection.dedup import conflicting, exact, minhash, rouge, semantic
from stillhouse.selection.hashing import words_of
from stillhouse.selection.minhash import Index, Shingles, bands, jaccard, shingled
from stillhouse.selection.tokens import _WORD, words

DATA = os.environ.get("STILLHOUSE_TEST_DATA")


def test_the_first_of_equals_stays(example) -> None:  # type: ignore[no-untyped-def]
    records = [example("p", "r"), example("p", "r"), example("p", "s"), example("q", "r"), example("p ", "r")]
    assert [why for _, why in exact(records)] == [None, "duplicate", None, None, None]
    assert [why for _, why in exact(records, on="prompt")] == [None, "duplicate", "duplicate", None, None]
    assert [why for _, why in exact(records, on="response")] == [None, "duplicate", None, "duplicate", "duplicate"]
    assert [why for _, why in exact(records, ignore_whitespace=True)][-1] == "duplicate"  # R60


@given(st.lists(st.text(max_size=3), max_size=30))
def test_what_is_kept_is_the_set_of_texts_in_order(texts: list[str]) -> None:
    seeds = [Seed(str(i), user(text)) for i, text in enumerate(texts)]
    kept = [record.prompt[0].content for record, why in exact(seeds, on="prompt") if why is None]
    assert kept == list(dict.fromkeys(texts))


ASCII_WORDS = st.lists(st.sampled_from(list("abcdefghijkl")), min_size=1, max_size=14)


@given(st.lists(ASCII_WORDS, max_size=25), st.sampled_from([0.5, 0.7, 0.9]))
@settings(max_examples=40, deadline=None)
def test_rouge_keeps_what_comparing_every_pair_with_rouge_score_keeps(lists: list[list[str]], threshold: float) -> None:
    """R01: the indexed pool decides as the exhaustive way does, with another implementation of ROUGE-L as the oracle."""
    scorer = RougeScorer(["rougeL"])
    texts = [" ".join(tokens) for tokens in lists]
    pool: list[str] = []
    for text in texts:
        if all(scorer.score(text, other)["rougeL"].fmeasure <= threshold + 1e-9 for other in pool):
            pool.append(text)
    seeds = [Seed(str(i), user(text)) for i, text in enumerate(texts)]
    assert [record.prompt[0].content for record, why in rouge(seeds, threshold=threshold) if why is None] == pool


def test_r01_a_prompt_with_two_answers_goes_whole() -> None:
    given = [("a", "1"), ("b", "2"), ("a", "1 "), ("b", "3"), ("c", "4")]
    rows = [Example(str(i), user(prompt), response) for i, (prompt, response) in enumerate(given)]
    assert [why for _, why in conflicting(rows)] == [None, "conflicting", None, "conflicting", None]
    assert [why for _, why in conflicting(rows, at_most=2)] == [None] * 5


def test_rouge_reindexes_as_the_pool_grows_and_still_finds_old_members() -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices([f"w{i}" for i in range(3000)], k=12)) for _ in range(700)]
    copies = [text + " indeed" for text in texts]  # F1 = 24/25
    seeds = [Seed(str(i), user(text)) for i, text in enumerate(texts + copies)]
    assert [why for _, why in rouge(seeds)] == [None] * 700 + ["not_novel"] * 700


def test_rouge_reads_every_script_and_two_empty_texts_are_not_alike() -> None:
    texts = ["写一首关于春天的诗", "解释量子力学的基本原理", "写一首关于春天的诗吧", "!!!", "???"]
    seeds = [Seed(str(i), user(text)) for i, text in enumerate(texts)]
    assert [why for _, why in rouge(seeds)] == [None, None, "not_novel", None, None]


def test_minhash_finds_planted_near_duplicates_and_drops_nothing_else() -> None:
    """R60: of 300 planted pairs with a shingle Jaccard of at least 0.8, 98 % are found; what is below 0.8 stays."""
    rng = random.Random(1)
    vocabulary = [f"word{i}" for i in range(5000)]
    originals = [rng.choices(vocabulary, k=rng.randint(40, 90)) for _ in range(1500)]
    seeds, planted = [], []
    for number, tokens in enumerate(originals):
        seeds.append(Seed(f"o{number}", user(" ".join(tokens))))
        if number % 5 == 0:
            changed = list(tokens)
            changed[rng.randrange(len(changed))] = "changed"
            pair = [set(zip(t, t[1:], t[2:])) for t in (tokens, changed)]
            if len(pair[0] & pair[1]) / len(pair[0] | pair[1]) >= 0.8:
                planted.append(f"c{number}")
            seeds.append(Seed(f"c{number}", user(" ".join(changed))))
    dropped = {record.id for record, why in minhash(seeds, on="prompt") if why}
    assert len(planted) > 250
    assert dropped <= set(planted)
    assert len(dropped) / len(planted) >= 0.98


def test_minhash_agrees_with_the_definition_of_jaccard() -> None:
    pair = shingled(["a b c d e f", "a b c d e g"], 3)
    a, b = set(pair[0].tolist()), set(pair[1].tolist())
    assert (len(a), len(b)) == (4, 4)
    assert jaccard(a, b) == pytest.approx(3 / 5)
    short: Shingles = shingled(["one two", "", "one", "one two three"], 3)
    assert [len(short[document]) for document in range(4)] == [1, 0, 1, 1]


@given(st.lists(st.text(st.sampled_from("abXY 9._\n\0é中ß\u0301\ud800"), max_size=40), max_size=6), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_shingles_are_the_runs_of_words_whatever_stands_around_them(texts: list[str], size: int) -> None:
    """One number for each run of words, the same for equal runs and another for others; texts do not run into each other."""
    found, numbers = shingled(texts, size), dict[tuple[str, ...], int]()
    for document, text in enumerate(texts):
        tokens = words(text)
        runs = [tuple(tokens[at : at + size]) for at in range(max(len(tokens) - size + 1, min(len(tokens), 1)))]
        assert len(found[document]) == len(runs)
        for run, number in zip(runs, found[document].tolist(), strict=True):
            assert numbers.setdefault(run, number) == number
    assert len(set(numbers.values())) == len(numbers)


def test_long_words_are_told_apart_to_their_last_letter() -> None:
    stems = ["a" * length for length in (7, 8, 9, 16, 17, 63, 64, 65, 200)]
    texts = [*stems, *[stem[:-1] + "b" for stem in stems], *[f"b{stem[1:]}" for stem in stems]]
    numbers, lengths = words_of(texts)
    assert lengths.tolist() == [1] * len(texts)
    assert len(set(numbers.tolist())) == len(texts)
    assert words_of([" ".join(texts)])[0].tolist() == numbers.tolist()


def test_bands_reach_the_recall_they_promise() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.95):
        count, rows = bands(threshold, 128)
        assert count * rows <= 128
        assert 1 - (1 - threshold**rows) ** count >= 0.99


def test_minhash_index_merges_runs_without_losing_a_key() -> None:
    index, rng = Index(), np.random.default_rng(0)
    keys_NB = rng.permutation(240_000).astype(np.uint64).reshape(30_000, 8) << np.uint64(40)
    for start in range(0, 30_000, 500):
        part, owners = keys_NB[start : start + 500].ravel(), np.repeat(np.arange(start, start + 500), 8)
        order = np.argsort(part)
        index.add(part[order], owners[order])
    order = np.argsort(keys_NB.ravel())
    assert (index.owners(keys_NB.ravel()[order]) == np.repeat(np.arange(30_000), 8)[order]).all()
    assert (index.owners(np.arange(240_000, 240_004, dtype=np.uint64) << np.uint64(40)) == -1).all()


@pytest.mark.parametrize("at_once", [1, 200, 1 << 19])
def test_minhash_drops_the_same_however_the_stream_is_cut(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of a group is kept, wherever in a batch or across batches its copies stand."""
    monkeypatch.setattr("stillhouse.selection.dedup._CHARACTERS_AT_ONCE", at_once)
    rng = random.Random(3)
    texts = [" ".join(rng.choices([f"w{i}" for i in range(500)], k=30)) for _ in range(20)]
    stream = [texts[i] for i in rng.choices(range(20), k=200)] + ["", "!!"]
    seeds = [Seed(str(i), user(text)) for i, text in enumerate(stream)]
    kept = [int(record.id) for record, why in minhash(seeds, on="prompt") if why is None]
    assert kept == [i for i, text in enumerate(stream) if text in ("", "!!") or stream.index(text) == i]


def test_words_of_plain_text_are_found_as_those_of_any_text() -> None:
    for text in ("It's 3.5 km, AT_LEAST -- ok?", "snake_case x2 A1b", "", "  \n", "C++ & C#"):
        assert words(text) == _WORD.findall(text.casefold())


def test_rouge_agrees_with_comparing_every_pair() -> None:
    """Whatever is passed over is below the threshold: the same verdicts as without an index, for any threshold."""
    from rapidfuzz.distance import Indel

    rng = random.Random(5)
    vocabulary = [f"w{int(rng.paretovariate(0.7))}" for _ in range(400)]
    texts = [rng.choices(vocabulary, k=rng.randint(0, 14)) for _ in range(300)]
    for threshold in (0.4, 0.7, 0.9):
        seeds = [Seed(str(i), user(" ".join(tokens))) for i, tokens in enumerate(texts)]
        kept: list[list[str]] = []
        for tokens, (_, why) in zip(texts, rouge(seeds, threshold=threshold), strict=True):
            near = any(tokens and other and Indel.normalized_similarity(tokens, other) > threshold for other in kept)
            assert (why == "not_novel") == near
            if not near:
                kept.append(tokens)


def test_thresholds_are_checked() -> None:
    for selector in (rouge, minhash):
        with pytest.raises(RecipeError, match="threshold is 1\\.5"):
            list(selector([Seed("s", user("t"))], threshold=1.5))


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_semantic_drops_paraphrases_and_keeps_other_questions() -> None:
    """R15: cosine with everything kept, by a real static embedder."""
    pytest.importorskip("model2vec")
    texts = [
        "How do I cook rice?",
        "What is the capital city of France?",
        "How do I cook rice at home?",
        "Write a poem about the ocean.",
        "What's the capital city of France?",
    ]
    seeds = [Seed(str(i), user(text)) for i, text in enumerate(texts)]
    got = [why for _, why in semantic(seeds, model=str(Path(DATA or "") / "potion-base-4M-int8"), threshold=0.8)]
    assert got == [None, None, "same_meaning", None, "same_meaning"]


@given(
    st.text(
        st.sampled_from("aB7 _-.\u2019\u2018\u201c\u201d\u2014\u2013\u2026\u00a0\u0301\u00e9\uff21\u4e2d"), max_size=30
    )
)
def test_typographic_marks_change_no_word(text: str) -> None:
    assert words(text) == _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def test_rouge_reads_a_word_repeated_without_end_in_no_time() -> None:
    """A model that goes round in circles: 60,000 times one word took minutes, for each repetition looked all others up."""
    loops = ["word " * 60_000, "a b " * 20_000, "other " * 60_000]
    seeds = [Seed(str(i), user(text)) for i, text in enumerate([*loops, *loops, "word " * 59_000])]
    assert [why for _, why in rouge(seeds)] == [None] * 3 + ["not_novel"] * 4


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_half_a_character_is_compared_by_meaning_too() -> None:
    pytest.importorskip("model2vec")
    seeds = [Seed(str(i), user(text)) for i, text in enumerate(["rice \ud800", "rice \ud800", ""])]
    got = [why for _, why in semantic(seeds, model=str(Path(DATA or "") / "potion-base-4M-int8"))]
    assert got == [None, "same_meaning", None]
