"""IFD in both definitions and reverse IFD, on a real small model."""

import math
import os
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.records import user
from stillhouse.selection.influence import Meter, ifd_by_losses, ifd_by_perplexities, reverse_ifd

DATA = os.environ.get("STILLHOUSE_TEST_DATA")
MODEL = str(Path(DATA or "") / "stories260K" / "hf")
pytestmark = pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")

STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."


def test_losses_are_those_of_the_model() -> None:
    """Against the library's own loss: a text after BOS, and after a prompt with the prompt's labels left out."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(MODEL).eval(), AutoTokenizer.from_pretrained(MODEL)
    alone, given = Meter(MODEL).losses([(None, STORY), (user("One day"), STORY)])
    text = tokenizer(STORY, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[tokenizer.bos_token_id, *text, tokenizer.eos_token_id]])
    with torch.inference_mode():
        assert alone == pytest.approx(float(model(input_ids=ids, labels=ids).loss), rel=1e-4)
    assert given is not None
    assert given != pytest.approx(alone, rel=1e-4)


def test_an_answer_that_its_prompt_prepares_has_an_ifd_far_below_one() -> None:
    """Property of section 11.3, in both definitions, which are not the same number (T13)."""
    prompt = user("Once upon a time, there was a little boy named Tim. Tim had a big dog named Max.")
    answer = " Max liked to run and play with Tim."
    given, alone = Meter(MODEL).losses([(prompt, answer), (None, answer)])
    assert given is not None
    assert alone is not None
    assert given / alone < 0.7
    assert math.exp(given - alone) < 0.3


def test_selection_drops_what_the_prompt_does_not_help_first(example) -> None:  # type: ignore[no-untyped-def]
    """R15: ratios of 1 and more go, then the highest share of the rest stays."""
    halves = [
        ("Once upon a time, there was a little boy named Tim.", " Tim liked to play with his red ball in the park."),
        ("Lily had a big cat. The cat was", " very happy. The cat liked to play with Lily."),
        ('Mom said, "It is time for bed."', ' Tom said, "I want to play with my toys, Mom."'),
        ("zq qz xx kk qqq zzz xkx qxq", " Once upon a time, there was a little girl named Lily."),
    ]
    records = [example(prompt, answer) for prompt, answer in halves]
    meter = Meter(MODEL)
    given = meter.losses([(r.prompt, r.response) for r in records])
    alone = meter.losses([(None, r.response) for r in records])
    ratios = [g / a for g, a in zip(given, alone)]  # type: ignore[operator]
    by_losses = dict(zip(ratios, (why for _, why in ifd_by_losses(iter(records), model=MODEL, share=0.5))))
    assert [by_losses[r] for r in ratios if r >= 1] == ["ifd_too_high"] * sum(r >= 1 for r in ratios)
    kept = sorted((r for r in ratios if r < 1), reverse=True)[:2]
    assert {r for r, why in by_losses.items() if why is None} == set(kept)
    assert {why for _, why in ifd_by_perplexities(records, model=MODEL, share=1.0)} <= {None, "ifd_too_high"}


def test_reverse_ifd_prefers_answers_that_give_their_request_away(example) -> None:  # type: ignore[no-untyped-def]
    """R13: the response that repeats the question predicts it better than a foreign one."""
    question = "Lily had a big red ball and a little cat."
    near, far = example(question, f"{question} {question}"), example(question, "zq qz xx kk qqq zzz")
    got = {r.response: why for r, why in reverse_ifd([far, near], model=MODEL, share=0.5, below=100.0)}
    assert got == {near.response: None, far.response: "reverse_ifd_too_high"}
    with pytest.raises(RecipeError, match="share is 0"):
        list(reverse_ifd([near], model=MODEL, share=0))
