"""A local white-box teacher on real published weights: its text, its beliefs and its independence of batches."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.errors import RecipeError, TeacherError
from stillhouse.records import user
from stillhouse.render import fingerprint, render
from stillhouse.teachers import run, transformers
from stillhouse.teachers.base import Answer, Failure, Outcome, Request, Reveals, Sampling, Scores
from stillhouse.teachers.calls import Calls

Open = Callable[..., Calls]
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high.\n"
)  # published with the weights: the text of their greedy answer


@pytest.fixture(scope="module")
def stories() -> Path:
    import os

    named = os.environ.get("STILLHOUSE_TEST_DATA")
    if not named:
        pytest.skip("STILLHOUSE_TEST_DATA names no folder of test data")
    return Path(named) / "stories260K" / "hf"


@pytest.fixture(scope="module")
def teacher(stories: Path) -> transformers.Teacher:
    return transformers.Teacher(model=stories, batch_size=8)


def text(outcome: Outcome) -> str:
    assert isinstance(outcome.result, Answer), outcome
    return outcome.result.text


def test_the_published_story(opened: Open, teacher: transformers.Teacher) -> None:
    """Without a chat template the plain text is continued, its blanks kept, with one BOS and no more."""
    sampling = Sampling(max_tokens=100, stop=("\n",))
    (outcome,) = opened().teacher("t", teacher).ask([Request(user("Once upon a time"), sampling)])
    assert "Once upon a time" + text(outcome) + "\n" == STORY
    assert isinstance(outcome.result, Answer)
    assert outcome.result.input_tokens == 5


def test_a_cut_story_is_no_answer(opened: Open, teacher: transformers.Teacher) -> None:
    (outcome,) = opened().teacher("t", teacher).ask([Request(user("Once upon a time"), Sampling(max_tokens=5))])
    assert isinstance(outcome.result, Failure)
    assert outcome.result.kind == "truncated"


PROMPTS = ["Once upon a time", "Lily", "The dog was very", "One day, a boy named Tim went to the park with his", "A"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_do_not_depend_on_their_neighbours(teacher: transformers.Teacher, temperature: float) -> None:
    """Alone or together, in either order: the same text, because each row has its own random numbers."""
    sampling = Sampling(max_tokens=24, temperature=temperature)
    requests = [Request(user(prompt), sampling) for prompt in PROMPTS * 3]
    requests = [replace(request, sample_index=index // 5) for index, request in enumerate(requests)]
    together = {id(o.request): text(o) for o in teacher.ask(requests)}
    backwards = {id(o.request): text(o) for o in teacher.ask(reversed(requests))}
    alone = {id(o.request): text(o) for request in requests for o in teacher.ask([request])}
    assert together == backwards == alone
    samples = {text for request, text in zip(requests, together.values()) if request.messages == user(PROMPTS[0])}
    assert len(set(together.values())) == (5 if temperature == 0 else 15), samples


def test_first_tokens_follow_the_models_distribution(teacher: transformers.Teacher) -> None:
    """Chi-square of 2,000 first tokens against the model's own probabilities; 8 degrees of freedom, p = 0.001 at 26.1."""
    import torch

    request = Request(user("Once upon a time, there was a little"), Sampling(max_tokens=1, temperature=1.0))
    requests = [replace(request, sample_index=index) for index in range(2000)]
    wide = transformers.Teacher(model=teacher._folder(), batch_size=500)
    model, tokenizer = wide.module(), wide.tokenizer()
    ids = torch.tensor([tokenizer(request.messages[0].content)["input_ids"]])
    with torch.inference_mode():
        probs = model(ids).logits[0, -1].softmax(-1)
    likely = probs.topk(8).indices.tolist()
    seen = dict.fromkeys(likely, 0)
    for outcome in wide.ask(requests):
        assert isinstance(outcome.result, Answer)
        for token in likely:
            seen[token] += outcome.result.text == _first(tokenizer, ids[0].tolist(), token)
    expected = {token: 2000 * float(probs[token]) for token in likely}
    rest, expected_rest = 2000 - sum(seen.values()), 2000 - sum(expected.values())
    chi = sum((seen[t] - expected[t]) ** 2 / expected[t] for t in likely) + (rest - expected_rest) ** 2 / expected_rest
    assert chi < 26.1


def _first(tokenizer: Any, prompt: list[int], token: int) -> str:
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    return tokenizer.decode([*prompt, token], skip_special_tokens=True)[len(before) :]


def test_beliefs_are_the_models_own(teacher: transformers.Teacher) -> None:
    """Batched and padded, against one plain forward pass per row."""
    import torch

    assert isinstance(teacher, Scores) and isinstance(teacher, Reveals)
    model, tokenizer = teacher.module(), teacher.tokenizer()
    pairs = [(user(prompt), response) for prompt in PROMPTS for response in (" there was a cat.", " x")]
    beliefs = list(teacher.top_logprobs(pairs, k=5))
    assert len(beliefs) == len(pairs)
    for (prompt, response), belief in zip(pairs, beliefs):
        row = render(tokenizer, prompt, response)
        with torch.inference_mode():
            logprobs = model(torch.tensor([row.ids])).logits[0, row.start - 1 : -1].double().log_softmax(-1)
        top = logprobs.topk(5)
        assert belief.token_ids_T.tolist() == row.response
        assert belief.token_ids_T[-1] == tokenizer.eos_token_id
        np.testing.assert_allclose(belief.top_logprobs_TK, top.values.numpy(), atol=2e-5)
        assert (belief.top_ids_TK == top.indices.numpy()).all()
    assert beliefs[0].top_logprobs_TK.dtype == np.float32


def test_beliefs_over_the_whole_vocabulary_sum_to_one(teacher: transformers.Teacher) -> None:
    (belief,) = teacher.top_logprobs([(user("Lily"), " was sad.")], k=512)
    np.testing.assert_allclose(np.exp(belief.top_logprobs_TK.astype(np.float64)).sum(-1), 1.0, atol=1e-5)
    with pytest.raises(RecipeError, match="1 to 512"):
        next(iter(teacher.top_logprobs([(user("Lily"), "")], k=513)))


def test_a_prompt_too_long_is_told_and_harms_no_other(opened: Open, teacher: transformers.Teacher) -> None:
    """Bad input 18."""
    sampling = Sampling(max_tokens=4)
    requests = [Request(user(prompt), sampling) for prompt in ("Lily", "x" * 600, "Tim")]
    kinds = [o.result.kind for o in opened().teacher("t", teacher).ask(requests) if isinstance(o.result, Failure)]
    assert kinds == ["truncated", "context_overflow", "truncated"]


def test_only_the_content_of_the_weights_counts(stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong hit after retraining is impossible, and a folder that moves keeps its answers."""
    monkeypatch.setenv("STILLHOUSE_STORE", str(tmp_path / "store"))
    folder = tmp_path / "model"
    shutil.copytree(stories, folder, copy_function=shutil.copyfile)
    here, there = transformers.Teacher(model=stories).identity(), transformers.Teacher(model=folder).identity()
    assert here.revision == there.revision
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert transformers.Teacher(model=folder).identity().revision != here.revision
    assert transformers.Teacher(model=stories).identity().revision == here.revision


def test_fingerprints_agree_for_one_tokenizer(teacher: transformers.Teacher, stories: Path) -> None:
    other = transformers.Teacher(model=stories)
    assert other.tokenizer_fingerprint() == teacher.tokenizer_fingerprint() == fingerprint(teacher.tokenizer())


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder"])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(TeacherError, match="no folder"):
        transformers.Teacher(model=name).identity()


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="no weights"):
        transformers.Teacher(model=tmp_path).identity()


def test_the_student_of_a_run_can_teach(stories: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="no student yet"):
        run.Teacher(path=tmp_path)
    (tmp_path / "student").symlink_to(stories)
    (outcome,) = run.Teacher(path=tmp_path).ask([Request(user("Once upon a time"), Sampling(max_tokens=9))])
    assert text(outcome) == ", there was a little girl named"


def test_resuming_gives_the_same_samples(opened: Open, teacher: transformers.Teacher) -> None:
    """One of the chunks is lost; the rows are drawn again as they were."""
    sampling = Sampling(max_tokens=60, temperature=1.0, stop=(".",))
    requests = [Request(user("Lily"), sampling, sample_index=index) for index in range(70)]
    calls = opened()
    first = list(calls.teacher("t", teacher).ask(requests))
    lost = [outcome.key for outcome in first[32:64]]
    with calls.store.transaction() as db:
        db.executemany("DELETE FROM answer WHERE key = ?", [(key,) for key in lost])
        db.executemany("UPDATE attempt SET outcome = 'lost' WHERE key = ?", [(key,) for key in lost])
    assert list(opened().teacher("t", teacher).ask(requests)) == first


def test_pocket_teacher_answers() -> None:
    pocket = pytest.importorskip("stillhouse.pocket")
    if not (Path(pocket.teacher_path()) / "config.json").is_file():
        pytest.skip("the pocket weights are not there yet")
    from stillhouse.teachers import pocket as backend

    teacher = backend.Teacher()
    outcomes = list(teacher.ask([Request(user("What is 2 + 3?"), Sampling(max_tokens=64))]))
    assert isinstance(outcomes[0].result, Answer)
    assert teacher.tokenizer().chat_template
