"""A real server of somebody else's: `transformers serve` on loopback, started and stopped here.

What comes back over HTTP must be what the same weights say in this process.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from stillhouse.errors import TeacherError
from stillhouse.records import user
from stillhouse.teachers import openai, transformers, vllm
from stillhouse.teachers.base import Answer, Failure, Request, Sampling
from stillhouse.teachers.calls import Calls

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn")),
    reason="transformers serve needs fastapi and uvicorn (pip install transformers[serving])",
)


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The base URL of a server of `model`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert process.poll() is None, "transformers serve ended by itself"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("transformers serve did not start within two minutes")


def questions(data: Path, number: int) -> list[str]:
    lines = (data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").split("\n")[:200]
    return sorted((json.loads(line)["question"] for line in lines if line), key=len)[:number]


def ends(calls: Calls, backend: object, requests: list[Request]) -> list[str]:
    outcomes = calls.teacher("t", backend, rungs=1).ask(requests)  # type: ignore[arg-type]
    return [o.result.text if isinstance(o.result, Answer) else o.result.kind for o in outcomes]


@pytest.mark.slow
def test_completions_are_what_the_weights_say(opened: Callable[..., Calls], data: Path) -> None:
    """Grade-school questions and story openings to a model without a chat template, through completions."""
    model = data / "stories260K" / "hf"
    openings = ["Once upon a time", "Lily saw a big", "The dog", "One day, Tim"]
    sampling = Sampling(max_tokens=24)
    requests = [Request(user(text), sampling) for text in [*openings, *questions(data, 6)]]
    local = {o.request.messages: o.result for o in transformers.Teacher(model=model).ask(requests)}
    with served(model) as url:
        calls = opened()
        backend = openai.Teacher(model=str(model), base_url=url, api="completions", max_concurrency=2)
        for outcome in backend.ask(requests):
            here = local[outcome.request.messages]
            assert isinstance(outcome.result, Failure) and outcome.result.kind == "truncated"
            assert isinstance(here, Answer) and here.finish_reason == "length"
        assert ends(calls, backend, requests) == ["truncated"] * 10
        raws = [json.loads(calls.store.raw(raw)) for (raw,) in calls.store.rows("SELECT raw FROM attempt ORDER BY id")]
        texts = {raw["choices"][0]["text"].strip() for raw in raws}
        assert texts == {answer.text.strip() for answer in local.values() if isinstance(answer, Answer)}
        assert [raw["usage"]["completion_tokens"] for raw in raws] == [24] * 10
    assert ends(opened(), backend, requests) == ["truncated"] * 10  # the server is gone, nothing is asked


@pytest.mark.slow
def test_chat_answers_are_what_the_weights_say(opened: Callable[..., Calls], data: Path) -> None:
    """The embedded teacher, through chat: its answers come in full, and a second run asks nobody."""
    pocket = pytest.importorskip("stillhouse.pocket")
    model = Path(pocket.teacher_path())
    if not (model / "config.json").is_file():
        pytest.skip("the pocket weights are not there yet")
    requests = [Request(user(text), Sampling(max_tokens=64)) for text in questions(data, 8)]
    # in half precision, as the server computes: `auto` takes float32 on a processor
    local = ends(opened(), transformers.Teacher(model=model, dtype="float16"), requests)
    with served(model) as url:
        backend = openai.Teacher(model=str(model), base_url=url, max_concurrency=2)
        calls = opened()
        remote = ends(calls, backend, requests)
        assert [text.strip() for text in remote] == [text.strip() for text in local]
        answered = calls.counts()["t"].answered
    calls = opened()
    assert ends(calls, backend, requests) == remote
    assert (calls.counts()["t"].attempts, calls.counts()["t"].hits) == (0, answered)


@pytest.mark.slow
def test_a_small_run_through_the_layer(opened: Callable[..., Calls], data: Path) -> None:
    """Six answers, asked once; what the server passes over is noticed."""
    pocket = Path(pytest.importorskip("stillhouse.pocket").teacher_path())
    asked = [Request(user(text), Sampling(max_tokens=64)) for text in questions(data, 5)]
    asked.append(replace(asked[0], response_schema={"type": "object"}))
    with served(pocket) as url:
        backend = openai.Teacher(model=str(pocket), base_url=url, max_concurrency=4)
        calls = opened()
        first = ends(calls, backend, asked)
        assert calls.counts()["t"].attempts == 6
        assert calls.counts()["t"].ignored == {"response_format": 1}
        scoring = vllm.Teacher(model=str(pocket), base_url=url)
        with pytest.raises(TeacherError):  # it answers and passes the log-probs over: none are made up
            next(calls.teacher("v", scoring).top_logprobs([(user("1 + 1"), "2")], k=2))  # type: ignore[attr-defined]
    assert ends(opened(), backend, asked) == first


@pytest.mark.slow
def test_500_requests_with_concurrency_adapting(opened: Callable[..., Calls], data: Path) -> None:
    """All are answered or cut off, none is asked twice; from one request at a time the pace grows to what it may have."""
    model = data / "stories260K" / "hf"
    words = ["Lily", "The dog", "A cat", "Tim", "Once", "The sun", "Mom", "A bird", "One day", "The red ball"]
    prompts = [f"{first} and {second.lower()} {index}" for index in range(5) for first in words for second in words]
    requests = [Request(user(text), Sampling(max_tokens=8)) for text in prompts]
    with served(model) as url:
        backend = openai.Teacher(model=str(model), base_url=url, api="completions", max_concurrency=16)
        calls = opened()
        got = ends(calls, backend, requests)
        assert len(got) == 500
        assert calls.counts()["t"].attempts == 500
        assert calls._paces[f"{backend.url} {model}"][0].limit == 16
    assert ends(opened(), backend, requests) == got
