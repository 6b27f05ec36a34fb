"""Log-probs over the wire: those of the served weights, bought once, and never of other tokens than were meant (D24)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.elicit import feature
from stillhouse.errors import RecipeError, TeacherError
from stillhouse.records import Lost, Seed, TopLogprobs, user
from stillhouse.teachers import scripted, transformers, vllm
from stillhouse.teachers.base import Sampling, Scores
from stillhouse.teachers.calls import Calls
from stillhouse.testing.provider import FakeProvider, Step

PAIRS = [(user("Once upon a time"), ", there was"), (user("Lily"), " ran.")]


@pytest.fixture(scope="module")
def local() -> transformers.Teacher:
    import os

    named = os.environ.get("STILLHOUSE_TEST_DATA")
    if not named:
        pytest.skip("STILLHOUSE_TEST_DATA names no folder of test data")
    return transformers.Teacher(model=Path(named) / "stories260K" / "hf")


def replies(local: transformers.Teacher, *, k: int, wrong: bool = False) -> list[Step]:
    """What a server of these weights would say to each pair, in vLLM's form: the k likeliest and the token itself."""
    import torch

    from stillhouse.render import render

    steps = []
    for prompt, response in PAIRS:
        ids = render(local.tokenizer(), prompt, response).ids
        with torch.inference_mode():
            logprobs = local.module()(torch.tensor([ids])).logits[0].log_softmax(-1)
        entries: list[Any] = [None]
        for place in range(1, len(ids)):
            told = {*logprobs[place - 1].topk(k).indices.tolist(), ids[place] + wrong}
            told -= {ids[place]} if wrong else set()
            entries.append({str(token): {"logprob": float(logprobs[place - 1, token])} for token in told})
        body = {
            "id": "x",
            "model": "m",
            "choices": [{"text": "", "prompt_logprobs": entries, "finish_reason": "length"}],
        }
        steps.append(Step(body=body))
    return steps


def test_what_the_served_weights_believe_is_bought_once(
    opened: Callable[..., Calls], local: transformers.Teacher
) -> None:
    direct = list(local.top_logprobs(PAIRS, k=4))
    with FakeProvider(tape=replies(local, k=4)) as provider:
        backend = vllm.Teacher(model="m", base_url=provider.url, tokenizer=str(local._folder()), max_concurrency=1)
        teacher = opened().teacher("t", backend)
        assert isinstance(teacher, Scores)
        assert teacher.tokenizer_fingerprint() == local.tokenizer_fingerprint()
        told = list(teacher.top_logprobs(PAIRS, k=4))
        assert [seen.path for seen in provider.requests] == ["/v1/completions"] * 2
        again = opened().teacher("t", backend)
        assert isinstance(again, Scores)
        stored = list(again.top_logprobs(PAIRS, k=4))
        assert len(provider.requests) == 2
    for one, other, kept in zip(direct, told, stored):
        assert one.token_ids_T.tolist() == other.token_ids_T.tolist() == kept.token_ids_T.tolist()
        assert one.top_ids_TK.tolist() == other.top_ids_TK.tolist() == kept.top_ids_TK.tolist()
        np.testing.assert_allclose(one.top_logprobs_TK, other.top_logprobs_TK, atol=2e-5)
        np.testing.assert_array_equal(other.top_logprobs_TK, kept.top_logprobs_TK)


@pytest.mark.parametrize("fault", ["other tokens", "too few"])
def test_a_server_with_another_tokenizer_is_found_out(
    opened: Callable[..., Calls], local: transformers.Teacher, fault: str
) -> None:
    steps = replies(local, k=4, wrong=fault == "other tokens")
    if fault == "too few":
        steps[0].body["choices"][0]["prompt_logprobs"].pop()
    with FakeProvider(tape=steps) as provider:
        backend = vllm.Teacher(model="m", base_url=provider.url, tokenizer=str(local._folder()))
        teacher = opened().teacher("t", backend)
        assert isinstance(teacher, Scores)
        with pytest.raises(TeacherError, match=r"read another token|tokens were sent"):
            list(teacher.top_logprobs(PAIRS, k=4))


def telling(
    local: transformers.Teacher, response: str, *, k: int = 4, api: str = "chat", written: list[int] | None = None
) -> Step:
    """A reply of these weights to the first prompt, in vLLM's form: the answer, and at each token it wrote what it believed."""
    import torch

    from stillhouse.render import render

    row = render(local.tokenizer(), PAIRS[0][0], response)
    ids = row.ids[: row.start] + (written or row.response)
    with torch.inference_mode():
        logprobs = local.module()(torch.tensor([ids])).logits[0].log_softmax(-1)
    content, tops = [], []
    for place in range(row.start, len(ids)):
        told = {f"token_id:{t}": float(logprobs[place - 1, t]) for t in logprobs[place - 1].topk(k).indices.tolist()}
        own = {"token": f"token_id:{ids[place]}", "logprob": float(logprobs[place - 1, ids[place]])}
        content.append({**own, "top_logprobs": [{"token": t, "logprob": value} for t, value in told.items()]})
        tops.append(told)
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    if api == "chat":
        choice |= {"message": {"content": response}, "logprobs": {"content": content}}
    else:
        names, own_values = [each["token"] for each in content], [each["logprob"] for each in content]
        choice |= {"text": response, "logprobs": {"tokens": names, "token_logprobs": own_values, "top_logprobs": tops}}
    usage = {"prompt_tokens": row.start, "completion_tokens": len(content)}
    return Step(body={"id": "x", "model": "m", "choices": [choice], "usage": usage})


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_an_answer_and_what_was_believed_of_it_are_one_request(
    opened: Callable[..., Calls], local: transformers.Teacher, api: str
) -> None:
    (direct,) = local.top_logprobs(PAIRS[:1], k=4)
    seed = Seed("s", PAIRS[0][0])
    with FakeProvider(tape=[telling(local, PAIRS[0][1], api=api)]) as provider:
        backend = vllm.Teacher(model="m", base_url=provider.url, tokenizer=str(local._folder()), api=api)  # type: ignore[arg-type]
        (made,) = feature.answer_top_logprobs([seed], opened().teacher("t", backend), k=4)
        assert isinstance(made, TopLogprobs)
        assert (made.response, made.tokenizer) == (PAIRS[0][1], local.tokenizer_fingerprint())
        assert made.origin.parents == ("s",) and len(made.origin.keys) == 1
        assert made.token_ids_T.tolist() == direct.token_ids_T.tolist()
        assert made.top_ids_TK.tolist() == direct.top_ids_TK.tolist()
        np.testing.assert_allclose(made.top_logprobs_TK, direct.top_logprobs_TK, atol=2e-5)
        sent = provider.requests[0].body
        assert sent["return_tokens_as_token_ids"] is True
        assert (sent["logprobs"], sent.get("top_logprobs")) == ((True, 4) if api == "chat" else (4, None))
        (again,) = feature.answer_top_logprobs([seed], opened().teacher("t", backend), k=4)
        assert isinstance(again, TopLogprobs) and again.top_logprobs_TK.tolist() == made.top_logprobs_TK.tolist()
        assert len(provider.requests) == 1
        list(feature.answer_top_logprobs([seed], opened().teacher("t", backend), k=5))
        assert len(provider.requests) == 2  # another k is another request: the stored one tells too little


def test_an_answer_read_as_other_tokens_is_lost_and_one_without_beliefs_is_noticed(
    opened: Callable[..., Calls], local: transformers.Teacher
) -> None:
    from stillhouse.render import render

    row = render(local.tokenizer(), *PAIRS[0])
    plain = telling(local, PAIRS[0][1])
    del plain.body["choices"][0]["logprobs"]
    as_text = telling(local, PAIRS[0][1])
    for place in as_text.body["choices"][0]["logprobs"]["content"]:
        place["token"] = ", there"
    steps = [telling(local, PAIRS[0][1], written=row.response[:-1]), plain, as_text]
    for number, step in enumerate(steps):
        with FakeProvider(tape=[step]) as provider:
            said: list[str] = []
            calls = opened(say=said.append)
            backend = vllm.Teacher(model="m", base_url=provider.url, tokenizer=str(local._folder()))
            (lost,) = feature.answer_top_logprobs([Seed("s", PAIRS[0][0])], calls.teacher("t", backend), k=4)
            assert isinstance(lost, Lost) and (lost.reason, lost.state) == ("other_tokens", "quarantined")
            calls.close()
            assert any("passed over logprobs" in text for text in said) == (number > 0)


def test_weights_that_lie_here_read_their_answer_once_more(
    opened: Callable[..., Calls], local: transformers.Teacher
) -> None:
    teacher = opened().teacher("t", local, Sampling(max_tokens=100, stop=("\n",)))
    (made,) = feature.answer_top_logprobs([Seed("s", PAIRS[0][0])], teacher, k=4)
    assert isinstance(made, TopLogprobs)
    (direct,) = local.top_logprobs([(made.prompt, made.response)], k=4)
    np.testing.assert_array_equal(made.top_ids_TK, direct.top_ids_TK)


def test_a_teacher_that_tells_nothing_is_refused(opened: Callable[..., Calls]) -> None:
    with pytest.raises(RecipeError, match="cannot tell log-probabilities of its answers"):
        next(feature.answer_top_logprobs([Seed("s", PAIRS[0][0])], opened().teacher("t", scripted.Teacher(reply="x"))))  # type: ignore[arg-type]
