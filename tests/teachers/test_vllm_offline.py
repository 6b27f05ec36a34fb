"""The vLLM engine's backend against objects of the shape that vLLM 0.10 documents; no real engine has run here.

The stand-in does what the engine would: it answers from the tokens it is given, with the weights of stories260K, and tells
their log-probs as mappings from token id to `Logprob`. So the mapping of parameters and outputs is held, not vLLM itself.
"""

import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stillhouse.elicit import feature
from stillhouse.errors import RecipeError, TeacherError
from stillhouse.records import Lost, Seed, TopLogprobs, user
from stillhouse.render import render
from stillhouse.teachers import transformers, vllm_offline
from stillhouse.teachers.asking.keys import derived_seed, request_key
from stillhouse.teachers.base import Answer, Failure, Request, Sampling
from stillhouse.teachers.calls import Calls

PAIRS = [(user("Once upon a time"), ", there was"), (user("Lily"), " ran.")]
ROOM = 120


@pytest.fixture(scope="module")
def weights() -> transformers.Teacher:
    named = os.environ.get("STILLHOUSE_TEST_DATA")
    if not named:
        pytest.skip("STILLHOUSE_TEST_DATA names no folder of test data")
    return transformers.Teacher(model=Path(named) / "stories260K" / "hf")


class Engine:
    """`vllm.LLM` as far as the backend uses it."""

    def __init__(self, weights: transformers.Teacher, misreads: bool) -> None:
        self.weights, self.misreads, self.params = weights, misreads, list[Any]()
        self.says, self.hides = list[int](), set[int]()
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=ROOM))

    def get_tokenizer(self) -> Any:
        return self.weights.tokenizer()

    def generate(self, prompts: list[dict[str, Any]], params: list[Any], use_tqdm: bool) -> list[Any]:
        assert all(len(prompt["prompt_token_ids"]) < ROOM for prompt in prompts), "one of these aborts a real batch"
        self.params += params
        return [self._one(prompt["prompt_token_ids"], each) for prompt, each in zip(prompts, params)]

    def _one(self, ids: list[int], params: Any) -> Any:
        import torch

        with torch.inference_mode():
            logprobs = self.weights.module()(torch.tensor([ids])).logits[0].log_softmax(-1)
        told: list[Any] | None = None
        if k := getattr(params, "prompt_logprobs", None):
            told = [None]
            for place in range(1, len(ids)):
                kept = {*logprobs[place - 1].topk(k).indices.tolist(), ids[place]}
                told.append({t: SimpleNamespace(logprob=float(logprobs[place - 1, t]), rank=1) for t in kept})
        if k := getattr(params, "logprobs", None):
            return self._telling(ids, k)
        new = [int(logprobs[-1].argmax())]
        choice = SimpleNamespace(text=self.get_tokenizer().decode(new), token_ids=new, finish_reason="length")
        if params.max_tokens > 20:
            choice.finish_reason = "stop"
        read = [*ids[:-1], ids[-1] + 1] if self.misreads else ids
        return SimpleNamespace(prompt_token_ids=read, prompt_logprobs=told, outputs=[choice])

    def _telling(self, ids: list[int], k: int) -> Any:
        """The answer `says`, with what the weights believed at each of its tokens."""
        import torch

        whole = [*ids, *self.says]
        with torch.inference_mode():
            logprobs = self.weights.module()(torch.tensor([whole])).logits[0].log_softmax(-1)
        told = []
        for place in range(len(ids), len(whole)):
            kept = {*logprobs[place - 1].topk(k).indices.tolist(), whole[place]} - self.hides
            told.append({t: SimpleNamespace(logprob=float(logprobs[place - 1, t]), rank=1) for t in kept})
        text = self.get_tokenizer().decode(self.says, skip_special_tokens=True)
        choice = SimpleNamespace(text=text, token_ids=self.says, finish_reason="stop", logprobs=told)
        return SimpleNamespace(prompt_token_ids=ids, prompt_logprobs=None, outputs=[choice])


@pytest.fixture
def engine(weights: transformers.Teacher, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    """Makes `import vllm` give the stand-in."""

    def installed(misreads: bool = False) -> Engine:
        made = Engine(weights, misreads)
        module = ModuleType("vllm")
        module.LLM = lambda **knobs: made  # type: ignore[attr-defined]
        module.SamplingParams = SimpleNamespace  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "vllm", module)
        real = importlib.metadata.version
        monkeypatch.setattr(vllm_offline, "version", lambda name: "0.10.2" if name == "vllm" else real(name))
        return made

    return installed


def backend(weights: transformers.Teacher, **knobs: Any) -> vllm_offline.Teacher:
    return vllm_offline.Teacher(model=str(weights._folder()), **knobs)


def test_parameters_and_answers(
    engine: Callable[..., Engine], weights: transformers.Teacher, opened: Callable[..., Calls]
) -> None:
    """The sampling as vLLM names it, a seed from the key; too long a prompt is set apart and its neighbours are answered."""
    made, teacher = engine(), backend(weights)
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=32, stop=("\n",))
    texts = ["Once upon a time", "very " * 300, "Lily saw a big"]
    requests = [Request(user(text), sampling) for text in texts]
    outcomes = list(opened().teacher("t", teacher).ask(requests))
    assert [type(outcome.result) for outcome in outcomes] == [Answer, Failure, Answer]
    assert isinstance(outcomes[1].result, Failure) and outcomes[1].result.kind == "context_overflow"
    first = made.params[0]
    assert (first.temperature, first.top_p, first.max_tokens, first.stop) == (0.7, 0.9, 32, ["\n"])
    assert first.seed == derived_seed(request_key(teacher.identity(), requests[0]))
    calls = opened()
    assert [o.result for o in calls.teacher("t", teacher).ask(requests)] == [o.result for o in outcomes]
    assert (len(made.params), calls.counts()["t"].attempts) == (2, 0)


def test_an_answer_cut_at_the_limit_is_not_one(engine: Callable[..., Engine], weights: transformers.Teacher) -> None:
    engine()
    (outcome,) = backend(weights).ask([Request(user("Lily"), Sampling(max_tokens=4))])
    assert isinstance(outcome.result, Answer) and outcome.result.finish_reason == "length"


def test_log_probs_are_those_of_the_weights(engine: Callable[..., Engine], weights: transformers.Teacher) -> None:
    engine()
    told = list(backend(weights).top_logprobs(PAIRS, k=4))
    for mine, theirs in zip(told, weights.top_logprobs(PAIRS, k=4), strict=True):
        assert mine.token_ids_T.tolist() == theirs.token_ids_T.tolist()
        np.testing.assert_allclose(mine.top_logprobs_TK, theirs.top_logprobs_TK, atol=1e-4)
    with pytest.raises(RecipeError, match="max_logprobs"):
        next(backend(weights, max_logprobs=3).top_logprobs(PAIRS, k=4))


def test_an_engine_that_reads_other_tokens_is_refused(
    engine: Callable[..., Engine], weights: transformers.Teacher
) -> None:
    engine(misreads=True)
    with pytest.raises(TeacherError, match="other tokens"):
        next(backend(weights).ask([Request(user("Lily"))]))
    with pytest.raises(TeacherError, match="other tokens"):
        next(backend(weights).top_logprobs(PAIRS, k=2))


def test_the_engine_and_its_settings_are_in_the_key(
    engine: Callable[..., Engine], weights: transformers.Teacher
) -> None:
    engine()
    request = Request(user("Lily"))
    keys = {
        request_key(backend(weights, **knobs).identity(), request)
        for knobs in ({}, {"engine": {"quantization": "fp8"}}, {"dtype": "bfloat16"})
    }
    assert len(keys | {request_key(weights.identity(), request)}) == 4


def test_without_vllm_it_says_what_to_install(weights: transformers.Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(TeacherError, match=r"stillhouse\[vllm\]"):
        next(backend(weights).ask([Request(user("Lily"))]))


def test_an_answer_comes_with_what_the_engine_believed_as_it_wrote_it(
    engine: Callable[..., Engine], weights: transformers.Teacher, opened: Callable[..., Calls]
) -> None:
    made, teacher = engine(), backend(weights)
    made.says = render(weights.tokenizer(), *PAIRS[0]).response
    seeds = [Seed("s", PAIRS[0][0])]
    (row,) = feature.answer_top_logprobs(seeds, opened().teacher("t", teacher), k=4)
    assert isinstance(row, TopLogprobs) and row.response == PAIRS[0][1]
    (direct,) = weights.top_logprobs(PAIRS[:1], k=4)
    assert row.token_ids_T.tolist() == direct.token_ids_T.tolist()
    np.testing.assert_allclose(row.top_logprobs_TK, direct.top_logprobs_TK, atol=1e-4)
    (again,) = feature.answer_top_logprobs(seeds, opened().teacher("t", teacher), k=4)
    assert isinstance(again, TopLogprobs) and again.top_ids_TK.tolist() == row.top_ids_TK.tolist()
    assert len(made.params) == 1
    made.says = made.says[:-1]  # no end of turn: the text is not read as these tokens
    (lost,) = feature.answer_top_logprobs(seeds, opened().teacher("t", teacher), k=5)
    assert isinstance(lost, Lost) and lost.reason == "other_tokens"
    made.says, made.hides = render(weights.tokenizer(), *PAIRS[0]).response, {direct.token_ids_T[0]}
    with pytest.raises(TeacherError, match="read another token"):
        list(feature.answer_top_logprobs(seeds, opened().teacher("t", teacher), k=3))
    with pytest.raises(RecipeError, match="max_logprobs"):
        list(feature.answer_top_logprobs(seeds, opened().teacher("t", teacher), k=21))
