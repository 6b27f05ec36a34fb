"""Seeds: every format that is read, and what is said about each that cannot be."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import write_jsonl

from stillhouse import seeds
from stillhouse.errors import RecipeError
from stillhouse.records import Message, user


def read(path: Path, **knobs: Any) -> list[Any]:
    return list(seeds.file(path=path, **knobs))


def test_the_four_formats_give_the_same_seeds(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"prompt": "one, «é»\nline two", "reference": "1", "extra": "a"},
        {"prompt": "two", "reference": "2", "extra": "b"},
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["prompt", "reference", "extra"])
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = [read(tmp_path / f"a.{kind}", columns=["extra"]) for kind in ("jsonl", "json", "csv", "parquet")]
    assert found[0] == found[1] == found[2] == found[3]
    assert [seed.reference for seed in found[0]] == ["1", "2"]
    assert [seed.columns for seed in found[0]] == [{"extra": "a"}, {"extra": "b"}]


def test_chat_messages_are_a_prompt(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": turns}])
    assert read(path)[0].prompt == (Message("system", "Be kind."), Message("user", "Hello?"))


def test_a_template_writes_the_prompt_from_the_row(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"q": "Why?", "options": ["a", "b"], "gold": 3}])
    made = read(path, template="{{ q }} ({{ options | join('/') }})", reference="gold")
    assert made[0].prompt == user("Why? (a/b)")
    assert made[0].reference == "3"  # a number is its text


def test_a_template_can_reach_nothing_but_the_row(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"q": "x"}])
    with pytest.raises(RecipeError, match="row 1: the template cannot be filled"):
        read(path, template="{{ q.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(RecipeError, match=r"row 1.*'r' is undefined"):
        read(path, template="{{ r }}")
    with pytest.raises(RecipeError, match=r"seeds\.template"):
        read(path, template="{{ q")


def test_equal_rows_stay_two_rows(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "same"}, {"prompt": "other"}, {"prompt": "same"}] * 2)
    ids = [seed.id for seed in read(path)]
    assert len(set(ids)) == 6
    same = ids[0]
    assert [ids[i] for i in (2, 3, 5)] == [f"{same}.2", f"{same}.3", f"{same}.4"]


def test_ids_depend_on_the_content_and_not_on_the_place(tmp_path: Path) -> None:
    first = read(write_jsonl(tmp_path / "a.jsonl", [{"prompt": "x"}, {"prompt": "y"}]))
    second = read(write_jsonl(tmp_path / "b.jsonl", [{"prompt": "new"}, {"prompt": "y"}, {"prompt": "x"}]))
    assert {seed.id for seed in first} < {seed.id for seed in second}


def test_limit_takes_the_first_rows_and_reads_no_further(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "x"}\nbroken\n', encoding="utf-8")
    assert len(read(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "holds no row"),
        ("a.jsonl", "\n\n", "holds no row"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": "y"', "line 2: not JSON"),
        ("a.jsonl", '{"prompt": "x"}\n["y"]\n', "line 2: a list"),
        ("a.jsonl", '{"promt": "x"}\n', "row 1: no field 'prompt'; did you mean 'promt'"),
        ("a.jsonl", '{"prompt": "  "}\n', "row 1: the prompt is empty"),
        ("a.jsonl", '{"prompt": 3}\n', "row 1: the prompt must be a string or a list of chat messages, not int"),
        ("a.jsonl", '{"prompt": []}\n', "row 1: the prompt must be"),
        ("a.jsonl", '{"prompt": [{"role": "bot", "content": "x"}]}\n', "row 1: a chat message needs `role`"),
        ("a.jsonl", '{"prompt": [{"role": "user", "content": null}]}\n', "row 1: a chat message needs"),
        ("a.json", "[]", "holds no row"),
        ("a.json", '[{"prompt": "x"},\n oops]', "line 2: not JSON"),
        ("a.json", '["x"]', "row 1: a str"),
        ("a.csv", "prompt,reference\n", "holds no row"),
        ("a.csv", "question\nx\n", "row 2: no field 'prompt'"),
        ("a.parquet", "no parquet", "cannot be read"),
    ],
)
def test_bad_input_is_named_with_its_place(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecipeError, match=said) as error:
        read(path)
    assert str(path) in str(error.value)


def test_other_encodings_and_missing_files_are_said(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.json", "a.csv", "a.txt"):
        path = tmp_path / name
        path.write_bytes('[{"prompt": "café"}]'.encode("latin-1"))
        with pytest.raises(RecipeError, match="not UTF-8 text"):
            list(seeds.documents(path=path)) if name == "a.txt" else read(path)
    with pytest.raises(RecipeError, match=r"nowhere\.jsonl: no such file"):
        read(tmp_path / "nowhere.jsonl")
    with pytest.raises(RecipeError, match="is a folder"):
        read(tmp_path)


def test_a_named_reference_or_column_must_be_there(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "x", "answer": "1"}])
    assert read(path)[0].reference is None
    with pytest.raises(RecipeError, match="row 1: no field 'anwser'; did you mean 'answer'"):
        read(path, reference="anwser")
    with pytest.raises(RecipeError, match="row 1: no field 'topic'"):
        read(path, columns=["topic"])


def test_documents_are_cut_at_paragraphs_and_lose_no_word(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("One two.\n\nThree four.\n\n" + "word " * 50, encoding="utf-8")
    (tmp_path / "a.txt").write_text("First file.", encoding="utf-8")
    made = list(seeds.documents(path=tmp_path, max_chars=40))
    texts = [seed.prompt[0].content for seed in made]
    assert texts[:2] == ["First file.", "One two.\n\nThree four."]
    assert max(map(len, texts)) <= 40
    assert " ".join(texts).split() == ["First", "file.", "One", "two.", "Three", "four.", *["word"] * 50]
    with pytest.raises(RecipeError, match="no file matches"):
        list(seeds.documents(path=tmp_path, pattern="*.md"))


def test_texts_are_examples_without_a_prompt(tmp_path: Path) -> None:
    """R11: plain text is learned as it stands, from a list of strings, from rows and from one long file."""
    (tmp_path / "a.json").write_text(json.dumps(["One.", {"text": "Two."}, "One."]), encoding="utf-8")
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n\nOne.", encoding="utf-8")
    for path in (tmp_path / "a.json", tmp_path / "a.txt"):
        made = list(seeds.texts(path=path, max_chars=5))
        assert [(example.prompt, example.response) for example in made] == [((), "One."), ((), "Two."), ((), "One.")]
        assert len({example.id for example in made}) == 3
    assert len(list(seeds.texts(path=tmp_path / "a.json", limit=2))) == 2
    with pytest.raises(RecipeError, match="row 1: 'text' is a int"):
        list(seeds.texts(path=write_jsonl(tmp_path / "b.jsonl", [{"text": 1}])))


def test_a_data_set_folder_is_streamed_through_the_same_fields(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"question": "1+1?", "answer": "2"}])
    made = list(seeds.hub(dataset=str(tmp_path), split="train", prompt="question", reference="answer"))
    assert [(seed.prompt, seed.reference) for seed in made] == [(user("1+1?"), "2")]


def test_tsv_and_an_object_of_objects_are_tables_too(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tanswer\n"He said ""no"", twice"\tYes\n', encoding="utf-8")
    (found,) = read(tmp_path / "a.tsv", prompt="text", reference="answer")
    assert (found.prompt, found.reference) == (user('He said "no", twice'), "Yes")
    (tmp_path / "b.json").write_text('{"12": {"q": "One?"}, "13": {"q": "Two?"}}', encoding="utf-8")
    assert [seed.columns["key"] for seed in read(tmp_path / "b.json", prompt="q", columns=["key"])] == ["12", "13"]
    (tmp_path / "c.json").write_text('{"prompt": "One row on one line"}', encoding="utf-8")
    assert len(read(tmp_path / "c.json")) == 1
    (tmp_path / "d.json").write_text('{"prompt": "a"}\n{"prompt": "b"}\n', encoding="utf-8")
    assert len(read(tmp_path / "d.json")) == 2


def test_each_member_of_a_list_is_a_row_with_the_fields_around_it(tmp_path: Path) -> None:
    row = {
        "table": [["a", "1"]],
        "questions": [{"q": "How much is a?", "answer": 1}, {"q": "Which?", "answer": ["a", "b"]}],
    }
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    knobs = {"each": "questions", "template": "{{ table[0] | join(' ') }}: {{ q }}"}
    answer = "{{ answer | string if answer is number else answer | join(', ') }}"
    found = read(path, **knobs, reference=answer)
    assert [(seed.prompt, seed.reference) for seed in found] == [
        (user("a 1: How much is a?"), "1"),
        (user("a 1: Which?"), "a, b"),
    ]
    with pytest.raises(RecipeError, match=r"'table' is .*|no field 'rows'"):
        read(path, each="rows", prompt="q")
    with pytest.raises(RecipeError, match=r"seeds\.reference"):
        read(path, **knobs, reference="{{ answer ")


def test_conversations_of_others_are_examples_of_every_answer_in_them(tmp_path: Path) -> None:
    """R07 (Vicuna, Koala), SK02: what was said before a turn is its prompt; a broken turn ends the conversation."""
    talk = [
        ("system", "Be brief."),
        ("human", "Hello?"),
        ("gpt", "Hello."),
        ("human", "Bye?"),
        ("gpt", "Bye."),
        ("gpt", "!"),
    ]
    turns = [{"from": who, "value": said} for who, said in talk]
    path = write_jsonl(
        tmp_path / "a.jsonl", [{"conversations": turns, "source": "a"}, {"conversations": turns[2:], "source": "b"}]
    )
    found = list(seeds.conversations(path=path, columns=["source"]))
    assert [one.response for one in found] == ["Hello.", "Bye."]
    assert found[1].prompt == (
        Message("system", "Be brief."), Message("user", "Hello?"), Message("assistant", "Hello."), Message("user", "Bye?"),
    )  # fmt: skip
    assert found[0].columns == {"source": "a"}
    assert [one.response for one in seeds.conversations(path=path, max_chars=22)] == ["Hello."]
    assert not list(seeds.conversations(path=path, limit=1, max_chars=3))
    with pytest.raises(RecipeError, match=r"row 1: a turn needs 'role'"):
        list(seeds.conversations(path=path, role="role"))


def test_pictures_are_told_by_their_captions(tmp_path: Path) -> None:
    """R61, SK15: a text-only teacher reads the caption; the row says which picture it was."""
    for name, content in {
        "b.jpg": b"two",
        "b.txt": b" A dog. ",
        "a.png": b"one",
        "c.jpg": b"no caption",
        "d.txt": b"no image",
    }.items():
        (tmp_path / name).write_bytes(content)
    (found,) = seeds.captions(path=tmp_path)
    assert found.prompt == user("A dog.")
    assert found.columns["image"].endswith("/b.jpg")
    assert found.columns["sha256"] == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
    (tmp_path / "a.txt").write_text("A cat.")
    assert [seed.prompt[0].content for seed in seeds.captions(path=tmp_path)] == ["A cat.", "A dog."]
    assert len(list(seeds.captions(path=tmp_path, limit=1))) == 1
    with pytest.raises(RecipeError, match="neither a folder nor a tar"):
        list(seeds.captions(path=tmp_path / "b.jpg"))


def test_a_tar_of_real_pictures(data: Path) -> None:
    """R61: 32 pictures of CC12M, in the layout of WebDataset."""
    found = list(seeds.captions(path=data / "multimodal" / "cc12m-train-0000.tar"))
    assert len(found) == 32
    assert "Red Square is a city square in Moscow, Russia." in {seed.prompt[0].content for seed in found}


def test_shared_pages_become_markdown(tmp_path: Path) -> None:
    """R07 (Vicuna): tags go, form stays, scripts and buttons are no text; what holds no tag is left alone."""
    page = (
        '<div class="markdown"><p>Use <b>a loop</b>:</p><pre><code class="language-python">for x in xs:\n    print(x &lt; 2)'
        "</code></pre><button>Copy code</button><script>track()</script><ul><li>quick</li><li>plain</li></ul>"
        "<table><tr><th>n</th></tr><tr><td>1_000</td></tr></table></div>"
    )
    plain = "Is 1 < 2 && a_b * 2 > 1?\n\n  Yes\tor no?"
    turns = [{"from": "human", "value": plain}, {"from": "gpt", "value": page}]
    path = tmp_path / "shared.jsonl"
    path.write_text(json.dumps({"conversations": turns}) + "\n")
    (one,) = seeds.conversations(path=path, html=True)
    assert one.prompt[0].content == plain
    assert one.response == (
        "Use **a loop**:\n\n```python\nfor x in xs:\n    print(x < 2)\n```\n\n* quick\n* plain\n\n| n |\n| --- |\n| 1_000 |"
    )
    (raw,) = seeds.conversations(path=path)
    assert raw.response == page
    (tmp_path / "page.html").write_text("<h1>Mills</h1><p>They <i>turn</i>.</p>")
    assert [seed.prompt[0].content for seed in seeds.documents(path=tmp_path / "page.html")] == [
        "# Mills\n\nThey *turn*."
    ]
