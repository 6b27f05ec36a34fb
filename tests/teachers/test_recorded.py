"""Answers that exist already: found by prompt, never by position, never guessed (D13 of peers: bad input 13)."""

import json
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.records import user
from stillhouse.teachers import recorded
from stillhouse.teachers.base import Answer, Failure, Request


def said(teacher: recorded.Teacher, *prompts: str) -> list[str]:
    results = [outcome.result for outcome in teacher.ask([Request(user(prompt)) for prompt in prompts])]
    return [result.text if isinstance(result, Answer) else result.kind for result in results]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = [
        {"prompt": "What is the capital of France?", "response": "Paris\u2028."},
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "Say hi"}],
            "response": ["hi", "ho"],
        },
        {"prompt": "What is the capital of France? And of Italy?", "response": "Paris, Rome"},
        {"prompt": "How many legs has a spider, please?", "response": "8", "why": "length"},
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def test_by_prompt_in_any_order(log: Path) -> None:
    teacher = recorded.Teacher(path=str(log))
    assert said(teacher, "Say hi", "What is the capital of France?", "Say h") == ["hi", "Paris\u2028.", "not_recorded"]


def test_a_prompt_inside_the_one_asked(log: Path) -> None:
    """The longest where they nest; two that do not nest are no answer."""
    teacher = recorded.Teacher(path=str(log))
    asked = "Think first.\nWhat is the capital of France? And of Italy?\nAnswer:"
    both = "What is the capital of France?\nHow many legs has a spider, please?"
    assert said(teacher, asked, both) == ["Paris, Rome", "ambiguous"]
    assert said(recorded.Teacher(path=str(log), match="exact"), asked) == ["not_recorded"]


def test_several_answers_are_samples(log: Path) -> None:
    teacher = recorded.Teacher(path=str(log))
    outcomes = list(teacher.ask([Request(user("Say hi"), sample_index=index) for index in range(3)]))
    assert [o.result.text for o in outcomes[:2] if isinstance(o.result, Answer)] == ["hi", "ho"]
    assert isinstance(outcomes[2].result, Failure)
    assert outcomes[2].result.state == "not_attempted"


def test_how_an_answer_ended(log: Path, tmp_path: Path) -> None:
    path = tmp_path / "ended.jsonl"
    rows = [("stop", "a"), ("length", "b"), ("who knows", "c")]
    path.write_text("\n".join(json.dumps({"prompt": p, "response": p, "why": why}) for why, p in rows))
    teacher = recorded.Teacher(path=str(path), finish_field="why")
    reasons = [
        o.result.finish_reason for o in teacher.ask(Request(user(p)) for p in "abc") if isinstance(o.result, Answer)
    ]
    assert reasons == ["stop", "length", "unknown"]


def test_another_content_is_another_teacher(log: Path) -> None:
    before = recorded.Teacher(path=str(log)).identity()
    assert recorded.Teacher(path=str(log)).identity() == before
    assert recorded.Teacher(path=str(log), match="exact").identity() != before
    log.write_text(log.read_text(encoding="utf-8").replace("Rome", "Roma"), encoding="utf-8")
    assert recorded.Teacher(path=str(log)).identity() != before


def test_a_large_teachers_answers_aligned_to_their_seeds(data: Path) -> None:
    """Published answers of a 540-billion model to the first 1,000 of 1,221 questions."""
    folder = data / "step-by-step" / "cqa"
    teacher = recorded.Teacher(
        path=str(folder / "llm" / "test_CoT_0.json"),
        layout="aligned",
        seeds=str(folder / "cqa_test.json"),
        prompt_field="question",
    )
    questions = [json.loads(line)["question"] for line in (folder / "cqa_test.json").read_text().splitlines()]
    answers = json.loads((folder / "llm" / "test_CoT_0.json").read_text())
    assert said(teacher, f"Q: {questions[5]}\nAnswer Choices: (a) ...", questions[999]) == [answers[5], answers[999]]
    assert said(teacher, questions[1000]) == ["not_recorded"]


def test_a_list_of_objects(data: Path) -> None:
    path = data / "step-by-step" / "llama3" / "svamp_test_llama3.json"
    rows = json.loads(path.read_text())
    teacher = recorded.Teacher(path=str(path), layout="json", prompt_field="input", response_field="gen_label")
    assert said(teacher, rows[7]["input"]) == [rows[7]["gen_label"]]
    assert sum(
        text not in ("not_recorded", "ambiguous") for text in said(teacher, *(row["input"] for row in rows))
    ) == len(rows)


def test_what_cannot_be_read_is_told(log: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no field 'question'"):
        said(recorded.Teacher(path=str(log), prompt_field="question"), "x")
    with pytest.raises(RecipeError, match="cannot be read"):
        recorded.Teacher(path=str(tmp_path / "none.jsonl")).identity()
    with pytest.raises(RecipeError, match="give both or neither"):
        recorded.Teacher(path=str(log), layout="aligned")
    with pytest.raises(RecipeError, match="no layout"):
        recorded.Teacher(path=str(log), layout="csv")  # type: ignore[arg-type]
    seeds = tmp_path / "one.jsonl"
    seeds.write_text('{"prompt": "a"}\n')
    answers = tmp_path / "answers.json"
    answers.write_text('["1", "2"]')
    with pytest.raises(RecipeError, match="2 answers for the 1 rows"):
        said(recorded.Teacher(path=str(answers), layout="aligned", seeds=str(seeds)), "a")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a", "resp')
    with pytest.raises(RecipeError, match="neither a JSON list nor"):
        said(recorded.Teacher(path=str(broken)), "a")
