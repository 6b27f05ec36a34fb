"""Real inputs through elicitors, selectors and graders: what the unit tests do on hand cases, on files made by others."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import write_jsonl

import stillhouse
from stillhouse import distill
from stillhouse.books import audit
from stillhouse.elicit.curation import snippet
from stillhouse.records import Example, Seed
from stillhouse.seeds import documents


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    return tmp_path


def recipe(seeds: dict[str, Any], teacher: dict[str, Any], **branch: Any) -> dict[str, Any]:
    return {
        "name": "real", "use": {"purpose": "research", "distributes": []},
        "teachers": {"main": {"backend": "scripted", **teacher}}, "knowledge": {"rows": {"seeds": seeds, **branch}},
    }  # fmt: skip


def test_r01_self_instruct_from_175_tasks_to_500_accepted(here: Path, data: Path) -> None:
    """The teacher lists real questions, eight at a time, every fourth of them an old one with a word more; 500 are kept."""
    questions = [json.loads(line)["question"] for line in (data / "gsm8k" / "train.jsonl").read_text().splitlines()]
    items = [text.rpartition(". ")[2] for text in questions]
    told = [f"{items[n - 3]} Please." if n % 4 == 3 else item for n, item in enumerate(items)]
    lists = ["\n".join(f"{i}. {text}" for i, text in enumerate(told[n : n + 8], 9)) for n in range(0, len(told), 8)]
    told = recipe(
        {"do": "file", "path": str(data / "instruct" / "seed_tasks.jsonl"), "prompt": "instruction", "reference": None},
        {"replies": lists},
        elicit=[{"do": "expansion.self_instruct", "teacher": "main", "wanted": 500, "most_requests": 200}],
        select=[{"do": "dedup.exact", "on": "prompt"}],
        keep=500,
    )
    run = distill(told, out="run", quiet=True)
    rows = list(run.records("rows"))
    seeds, asked = run.manifest["steps"][:2]
    assert (seeds["out"], len(rows)) == (175, 500)
    assert asked["lost"]["not_novel"] >= 125
    texts = [row.prompt[0].content for row in rows]
    assert len(set(texts)) == 500
    # an old one with a word more comes in only where the old one did not
    assert not [text for text in texts if text.endswith(" Please.") and text.removesuffix(" Please.") in texts]
    assert run.manifest["calls"]["main"]["attempts"] < 200
    assert audit(run.path)["problems"] == []


def test_r60_oss_instruct_from_the_source_of_this_package(here: Path) -> None:
    """Each problem comes of consecutive lines of a real file, drawn by the file's id; every row knows which."""
    source = Path(stillhouse.__file__).parent / "selection"
    code = "```python\ndef f():\n    return 1\n```"
    reply = f"[Problem] Say what a function built around this would do:\n{{1}}\n[Solution] So:\n{code}"
    told = recipe(
        {"do": "documents", "path": str(source), "pattern": "*.py", "max_chars": 100_000},
        {"responses": {r"taken from anywhere:\n\n(.*)\n\nLet them": reply}},
        elicit=[{"do": "curation.from_code", "teacher": "main"}],
        select=[{"do": "dedup.exact", "ignore_whitespace": True}, {"do": "dedup.minhash"}],
    )
    run = distill(told, out="run", quiet=True)
    files = {seed.id: seed for seed in documents(path=source, pattern="*.py", max_chars=100_000)}
    rows = [row for row in run.records("rows") if isinstance(row, Example)]
    assert len(files) >= 12
    assert len(rows) >= 0.8 * len(files)
    for row in rows:
        lines = snippet(files[row.origin.parents[0]], 15, 0)
        assert lines in row.prompt[0].content
        assert lines in files[row.origin.parents[0]].prompt[0].content
        assert 1 <= len(lines.splitlines()) <= 15
    assert run.manifest["steps"][1]["coverage"]["most"] == 1


@pytest.mark.slow
def test_r09_dialogue_with_the_pocket_teacher_on_both_sides(here: Path) -> None:
    """It cannot play a person: what ends its talks is told, and what is kept alternates."""
    write_jsonl(
        here / "seeds.jsonl", [{"prompt": "What is a river?"}, {"prompt": "Ann has 3 pears and buys 4. How many now?"}]
    )
    told = recipe(
        {"do": "file", "path": "seeds.jsonl"},
        {},
        elicit=[{"do": "labeling.dialogue", "teacher": "main", "exchanges": 3}],
    )
    told["teachers"]["main"] = {"backend": "pocket", "sampling": {"max_tokens": 48}}
    run = distill(told, out="run", quiet=True)
    rows = list(run.records("rows"))
    assert rows
    for row in rows:
        assert not isinstance(row, Seed)
        assert [message.role for message in row.prompt] == ["user", "assistant"] * (len(row.prompt) // 2) + ["user"]
        assert row.columns["ended"] in ("length", "done", "role_flip", "repeats", "thanks", "truncated", "empty")
    assert audit(run.path)["problems"] == []
