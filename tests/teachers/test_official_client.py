"""What the company's own client sends and reads at the same server is what this package sends and reads (teacher-calls 16)."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from stillhouse.records import Message
from stillhouse.teachers import openai
from stillhouse.teachers.base import Answer, Request, Sampling
from stillhouse.teachers.calls import Calls
from stillhouse.testing.provider import BatchStep, FakeProvider, Step

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=40, stop=("\n\n",))
MESSAGES = (Message("system", "Be brief."), Message("user", "2 + 2 = ?"))
STEPS = {
    "an answer": Step(text="Four."),
    "not ASCII": Step(text="vier \U0001f9ea \u00e9 e\u0301"),
    "cut off": Step(text="Fo", finish="length"),
    "filtered": Step(text="", finish="content_filter"),
    "a tool": Step(text="Four.", finish="tool_calls"),
    "reasoning apart": Step(text="Four.", reasoning="two and two"),
    "tokens told apart": Step(
        usage={
            "prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29,
            "completion_tokens_details": {"reasoning_tokens": 5}, "prompt_tokens_details": {"cached_tokens": 16},
        }
    ),
}  # fmt: skip


def official(url: str) -> Any:
    import openai as company

    return company.OpenAI(base_url=url, api_key="none", max_retries=0)


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("name", STEPS)
def test_one_request_and_its_reply(opened: Callable[..., Calls], api: str, name: str) -> None:
    step = STEPS[name]
    with FakeProvider("Four.", tape=[step, step]) as provider:
        backend = openai.Teacher(model="m", base_url=provider.url, api=api)  # type: ignore[arg-type]
        calls = opened(say=lambda text: None)
        (outcome,) = calls.teacher("t", backend, rungs=1).ask([Request(MESSAGES, SAMPLING)])
        ours = provider.requests[0]
        client = official(provider.url)
        create = client.chat.completions.create if api == "chat" else client.completions.create
        reply = create(**ours.body)
        theirs = provider.requests[1]
        assert (theirs.path, theirs.body) == (ours.path, ours.body)
        choice = reply.choices[0]
        sql = "SELECT input_tokens, output_tokens, reasoning_tokens, cached_tokens FROM attempt"
        usage = reply.usage
        told = usage.completion_tokens_details, usage.prompt_tokens_details
        details = (told[0].reasoning_tokens if told[0] else 0, told[1].cached_tokens if told[1] else 0)
        assert calls.store.rows(sql) == [(usage.prompt_tokens, usage.completion_tokens, *details)]
        text = choice.message.content if api == "chat" else choice.text
        if choice.finish_reason in ("stop", "tool_calls"):
            assert isinstance(outcome.result, Answer) and outcome.result.text == text
            assert outcome.result.served_model == reply.model
            thought = getattr(choice.message, "reasoning_content", "") if api == "chat" else ""
            assert outcome.result.reasoning == thought
        else:
            kinds = {"length": "truncated", "content_filter": "refused"}
            assert not isinstance(outcome.result, Answer) and outcome.result.kind == kinds[choice.finish_reason]


def test_a_batch(opened: Callable[..., Calls], clock: Any) -> None:
    """The company's client finds the batch that was made, its file and the same answers in it."""
    with FakeProvider("Four.", batches=[BatchStep(polls=1)]) as provider:
        backend = openai.Teacher(model="m", base_url=provider.url, transport="batch")
        requests = [Request(MESSAGES, SAMPLING, index) for index in range(5)]
        calls = opened(clock=clock, say=lambda text: None)
        outcomes = list(calls.teacher("t", backend).ask(requests))
        client = official(provider.url)
        (batch,) = client.batches.list(limit=10).data
        assert batch.status == "completed" and set(batch.metadata) == {"local_id"}
        sent = [json.loads(line) for line in client.files.content(batch.input_file_id).text.splitlines()]
        assert {line["custom_id"] for line in sent} == {outcome.key for outcome in outcomes}
        assert {line["method"] + line["url"] for line in sent} == {"POST/v1/chat/completions"}
        read = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
        texts = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in read}
        assert texts == {o.key: o.result.text for o in outcomes if isinstance(o.result, Answer)}
