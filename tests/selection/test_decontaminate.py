import gzip
import json
import os
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.records import Seed, user
from stillhouse.selection.decontaminate import Overlaps, chance, ngrams, semantic

DATA = os.environ.get("STILLHOUSE_TEST_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
QUESTION = "A robe takes two bolts of blue fiber and half that much white fiber; how many bolts in total does it take?"


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    path = tmp_path / "quiz.jsonl"
    path.write_text(
        json.dumps({"question": QUESTION}) + "\n" + json.dumps({"question": "Who wrote the tragedy Hamlet?"})
    )
    return path


def test_a_shared_run_of_words_is_found_however_it_is_written(held_out: Path) -> None:
    texts = [
        "In short: a ROBE takes two bolts of blue fiber, and half -- that much white!",
        "A robe takes two bolts of green fiber and twice that much white.",
        "who wrote the tragedy hamlet",
        "Who wrote the comedy As You Like It?",
    ]
    seeds = [Seed(str(i), user(text)) for i, text in enumerate(texts)]
    assert [why for _, why in ngrams(seeds, path=str(held_out), n=10)] == ["overlap:quiz", None, "overlap:quiz", None]


def test_the_items_that_overlap_are_known(held_out: Path) -> None:
    index = Overlaps.read([str(held_out)], ["question"], 10)
    assert [index.items[i] for i in index.of("Who wrote the tragedy Hamlet?")] == [("quiz", 2)]
    assert index.of("") == ()


def test_broken_files_and_short_runs_are_refused(tmp_path: Path, held_out: Path) -> None:
    with pytest.raises(RecipeError, match="n is 3"):
        list(ngrams([], path=str(held_out), n=3))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "fine and long enough for this"}\n{"question"')
    with pytest.raises(RecipeError, match="line 2"):
        list(ngrams([], path=str(broken)))
    with pytest.raises(RecipeError, match="no row of"):
        list(ngrams([], path=str(held_out), fields=["nothing"]))


@pytest.mark.parametrize("kind", ["json", "csv", "jsonl.gz"])
def test_an_evaluation_set_lies_in_any_table(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"quiz.{kind}"
    rows = {"json": json.dumps([{"question": QUESTION}]), "csv": f'question\n"{QUESTION}"\n'}
    if kind == "jsonl.gz":
        path.write_bytes(gzip.compress(json.dumps({"question": QUESTION}).encode()))
    else:
        path.write_text(rows[kind])
    assert [why for _, why in ngrams([Seed("s", user(QUESTION))], path=str(path))] == ["overlap:quiz"]


def test_evaluation_sets_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name, content, said in (
        ("list.jsonl", b'{"question": "x"}\n[1]\n', "list.jsonl, line 2: a list"),
        ("cut.jsonl.gz", gzip.compress(b'{"question": "x"}' * 99)[:-9], "cut.jsonl.gz: not a whole gzip file"),
        ("latin.jsonl", b'{"question": "\xe9"}', "latin.jsonl: not UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecipeError, match=said):
            list(ngrams([], path=str(tmp_path / name)))
    with pytest.raises(RecipeError, match=r"nowhere\.jsonl: no such file"):
        list(ngrams([], path=str(tmp_path / "nowhere.jsonl")))


def test_many_texts_at_once_are_found_as_one_by_one(held_out: Path) -> None:
    index = Overlaps.read([str(held_out)], ["question"], 10)
    texts = [
        QUESTION,
        "",
        "Who wrote the tragedy Hamlet?",
        "short",
        f"first {QUESTION} last",
        "a b c d e f g h i j k l",
    ]
    assert index.of_many(texts) == [index.of(text) for text in texts] == [(0,), (), (1,), (), (0,), ()]
    assert index.of_many([]) == []


def test_texts_by_chance_have_the_words_and_lengths_and_no_runs(held_out: Path) -> None:
    seeds = [Seed(str(i), user(f"{QUESTION} Number {i}.")) for i in range(20)]
    made = chance(seeds, 50)
    assert len(made) == 50
    assert {len(one.response.split()) for one in made} == {24}
    assert not [why for _, why in ngrams(made, path=str(held_out), on="response") if why]
    assert chance([]) == []


@needs_data
def test_gsm8k_test_is_found_inside_itself_and_hardly_anywhere_else() -> None:
    """R11, R60: every test question hits the reference bundle; TinyStories, which cannot, is the false-positive control."""
    bundle = Path(DATA or "") / "contamination" / "gsm8k_test-1.jsonl.gz"
    index = Overlaps.read([str(bundle)], ["question"], 10)
    with gzip.open(bundle, "rt", encoding="utf-8") as source:
        questions = [json.loads(line)["question"] for line in source]
    assert len(questions) == 1319
    planted = [f"Please solve this. {question} Show your work." for question in questions]
    assert index.share(planted) == 1.0
    stories = json.loads((Path(DATA or "") / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))
    assert index.share(stories) == 0.0
    train = (Path(DATA or "") / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:2000]
    assert index.share([json.loads(line)["question"] for line in train]) < 0.02


@needs_data
def test_a_rewording_is_found_by_meaning_only(held_out: Path) -> None:
    pytest.importorskip("model2vec")
    model = str(Path(DATA or "") / "potion-base-4M-int8")
    seeds = [Seed("1", user("Hamlet, the tragedy: who wrote it?")), Seed("2", user("How tall is the Eiffel tower?"))]
    assert [why for _, why in ngrams(seeds, path=str(held_out))] == [None, None]
    assert [why for _, why in semantic(seeds, path=str(held_out), model=model, threshold=0.75)] == [
        "same_meaning:quiz",
        None,
    ]
