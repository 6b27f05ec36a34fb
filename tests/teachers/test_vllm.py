"""Log-probs over the wire: those of the served weights, bought once, and never of other tokens than were meant (D24)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.errors import TeacherError
from stillhouse.records import user
from stillhouse.teachers import transformers, vllm
from stillhouse.teachers.base import Scores
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
