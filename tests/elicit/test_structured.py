"""Structured answers over the wire: the schema is sent, the answer read strictly, LaTeX survives (bad inputs 1-4, 24, 26)."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from stillhouse.elicit.structured import answer
from stillhouse.errors import RecipeError, TeacherError
from stillhouse.records import Example, Seed, user
from stillhouse.teachers import anthropic, openai
from stillhouse.teachers.base import Answer, Request, Sampling
from stillhouse.teachers.calls import Calls
from stillhouse.testing.provider import FakeProvider, Step, status

ANY = {"type": "string"}


class Card(BaseModel):
    question: str
    score: int = Field(ge=1, le=10)


REPLIES = {
    "good": ('{"question": "Why?", "score": 3}', '{"question": "Why?", "score": 3}'),
    "fenced": ('Here:\n```json\n{"question": "Why?", "score": 3}\n```', '{"question": "Why?", "score": 3}'),
    "latex": (
        r'{"question": "What is \frac{1}{2}?", "score": 3}',
        r'{"question": "What is \\frac{1}{2}?", "score": 3}',
    ),
    "cut": ('{"question": "Why', "cut_off"),
    "two": ('{"question": "a", "score": 1} {"question": "b", "score": 2}', "several"),
    "twice": ('{"question": "a", "score": 1, "score": 9}', "duplicate_key"),
    "words": ('{"question": "a", "score": "8"}', "schema"),
    "range": ('{"question": "a", "score": 85}', "schema"),
    "prose": ("I would say eight.", "no_json"),
    "commas": ('{"question": "a", "score": 1,}', "syntax"),
    "mid-sentence": ('{"question": "He said \\"go", "score": 1}', "looks_cut"),
    "spaces": ('{"question": "a", "score": 1' + " " * 600, "loops"),
}


def asked(tmp_path: Path, backend: Any, **knobs: Any) -> list[Any]:
    seeds = [Seed(name, user(name)) for name in REPLIES]
    with Calls(tmp_path, say=lambda text: None) as calls:
        return list(answer(seeds, calls.teacher("t", backend), **knobs))


@pytest.mark.parametrize("schema", [Card, Card.model_json_schema()], ids=["a pydantic model", "a JSON schema"])
def test_each_answer_is_read_or_lost_with_its_reason(tmp_path: Path, schema: Any) -> None:
    tape = {name: [Step(text=text)] for name, (text, _) in REPLIES.items()}
    with FakeProvider(by_prompt={rf"\A{name}\b": steps for name, steps in tape.items()}) as provider:
        made = asked(tmp_path, openai.Teacher(model="fake", base_url=provider.url), schema=schema)
        got = [each.response if isinstance(each, Example) else each.reason for each in made]
        assert got == [wanted for _, wanted in REPLIES.values()]
        assert made[2].columns == {"read": "latex_fixed"}
        sent = provider.requests[0].body["response_format"]["json_schema"]["schema"]
        assert sent == Card.model_json_schema()
        assert json.dumps(sent) in provider.requests[0].prompt
        again = asked(tmp_path, openai.Teacher(model="fake", base_url=provider.url), schema=schema, repair=True)
        assert again[9].response == '{"question": "a", "score": 1}' and again[9].columns == {"read": "repaired"}
        assert again[3].reason == "cut_off"  # what was cut off is never mended
        assert len(provider.requests) == len(REPLIES)  # another way of reading asks nothing


@pytest.mark.parametrize("transport", ["online", "batch"])
def test_anthropics_form_is_sent_and_what_it_does_not_take_is_checked_here(tmp_path: Path, transport: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "maximum": {"type": "integer", "maximum": 10},
            "tags": {"type": "array", "maxItems": 2, "items": ANY},
        },
        "required": ["maximum"],
    }
    replies = ['{"maximum": 3}', '{"maximum": 11}', '{"maximum": 1, "tags": ["a", "b", "c"]}', "It is three."]
    tape = {rf"\A{name}\b": [Step(text=text)] for name, text in zip(REPLIES, replies)}
    with FakeProvider('{"maximum": 1}', by_prompt=tape) as provider:
        knobs = {"transport": transport, "extra_body": {"output_config": {"effort": "low"}}}
        made = asked(tmp_path, anthropic.Teacher(model="fake", base_url=provider.url, **knobs), schema=schema)
        got = [each.response if isinstance(each, Example) else each.reason for each in made[:4]]
        assert got == ['{"maximum": 3}', "schema", "schema", "no_json"]
        assert provider.requests[0].body["output_config"] == {
            "effort": "low",
            "format": {
                "type": "json_schema",
                "schema": {
                    "type": "object",
                    "properties": {"maximum": {"type": "integer"}, "tags": {"type": "array", "items": ANY}},
                    "required": ["maximum"],
                    "additionalProperties": False,
                },
            },
        }
        assert '"maximum": 10' in provider.requests[0].prompt  # the bounds are told all the same


def test_a_server_that_passes_over_the_form_is_noticed(tmp_path: Path, capsys: Any) -> None:
    said: list[str] = []
    request = Request(user("q"), Sampling(max_tokens=9), response_schema={"type": "object"})
    with FakeProvider("It is three.") as provider, Calls(tmp_path / "store", say=said.append) as calls:
        teacher = calls.teacher("t", anthropic.Teacher(model="fake", base_url=provider.url))
        ((answered),) = (outcome.result for outcome in teacher.ask([request]))
        assert isinstance(answered, Answer) and answered.ignored == ("output_config",)
        assert calls.counts()["t"].ignored == {"output_config": 1}
    assert said == ["teacher 't': the server passed over output_config in 1 of 1 answers"]


def test_a_server_that_refuses_the_form_ends_the_run_and_one_told_nothing_is_read_all_the_same(tmp_path: Path) -> None:
    refusing = [status(400, "invalid_request_error")]
    with FakeProvider('{"question": "a", "score": 1}', tape=refusing) as provider:
        with pytest.raises(TeacherError, match="does not accept the first request"):
            asked(tmp_path, anthropic.Teacher(model="fake", base_url=provider.url), schema=Card)
        dropping = anthropic.Teacher(model="fake", base_url=provider.url, allow_drop=["response_schema"])
        assert len([each for each in asked(tmp_path, dropping, schema=Card) if isinstance(each, Example)]) == len(
            REPLIES
        )


def test_a_schema_that_is_none(tmp_path: Path) -> None:
    with FakeProvider("x") as provider, pytest.raises(RecipeError, match="schema is none"):
        asked(tmp_path, openai.Teacher(model="fake", base_url=provider.url), schema={"type": "thing"})
