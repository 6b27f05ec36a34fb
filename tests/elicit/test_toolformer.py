"""Calls of tools inside texts: where they may stand, what a teacher would call, and which of them help (R46, J8)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.elicit import toolformer
from stillhouse.elicit.call_gain import WINDOW, Gauge, window
from stillhouse.errors import RecipeError
from stillhouse.pocket import student_path
from stillhouse.records import Example, Lost
from stillhouse.teachers.transformers import Teacher
from stillhouse.tools import calculator, calendar

DATA = os.environ.get("STILLHOUSE_TEST_DATA")
TEXT = "Of 1400 people 400 passed, which is 0.29 of all. It was a hard day."
TOLD = {"calculator": "calculator(3 + 4) gives 7"}
Scripted = Callable[..., Any]


def text(response: str = TEXT, **columns: Any) -> Example:
    return Example(f"id-{response}", (), response, columns=columns)


def test_g16_the_weights_of_the_window() -> None:
    """G16: max(0, 1 - 0.2 t) made to sum to 1: .333 .267 .200 .133 .067."""
    assert [round(weight, 3) for weight in WINDOW] == [0.333, 0.267, 0.2, 0.133, 0.067]
    assert window([3.0, 3.0, 3.0, 3.0, 3.0, 99.0]) == pytest.approx(3.0)
    assert window([1.5, 0.5]) == pytest.approx((1.0 * 1.5 + 0.8 * 0.5) / 3)


class Told:
    """Losses by what stands before the text."""

    def __init__(self, **losses: list[float]) -> None:
        self.by = losses

    def losses(self, prefix: str, text: str, at: int) -> list[float]:
        return self.by["whole" if "->" in prefix else "bare" if prefix else "none"]


def test_r46_j8_the_gain_of_a_call_by_hand() -> None:
    """R46, J8: min(L(no call), L(call without its result)) - L(call with it): 2.4 - 0.8, where the bare call helps too."""
    told = Told(none=[3.0] * 5, bare=[4.0, 3.0, 2.0, 0.0, 0.0], whole=[1.0, 1.0, 1.0, 0.0, 0.0])
    assert window(told.by["bare"]) == pytest.approx((4.0 + 0.8 * 3 + 0.6 * 2) / 3)
    gain = toolformer.gain_of(told, TEXT, 36, "calculator(400 / 1400)", "0.29")  # type: ignore[arg-type]
    assert gain == pytest.approx((7.6 - 2.4) / 3)


def test_losses_are_the_models_own_and_see_only_what_stands_before() -> None:
    """J8: the same five tokens with and without a call before the text, against the model asked directly."""
    teacher = Teacher(model=student_path())
    gauge, at = Gauge(teacher.module(), teacher.tokenizer()), TEXT.index("0.29")
    ids = teacher.tokenizer()(TEXT, add_special_tokens=False)["input_ids"]
    first = next(i for i in range(len(ids)) if len(teacher.tokenizer().decode(ids[: i + 1])) > at)
    start = gauge._start()
    with torch.inference_mode():
        logits = teacher.module()(torch.tensor([[start, *ids]])).logits[0].double()
    expected = torch.nn.functional.cross_entropy(
        logits[first : first + 5], torch.tensor(ids[first : first + 5]), reduction="none"
    )
    assert gauge.losses("", TEXT, at) == pytest.approx(expected.tolist(), abs=1e-4)
    assert gauge.losses("[calculator(400 / 1400) -> 0.29] ", TEXT, at) != pytest.approx(expected.tolist(), abs=1e-3)
    assert len(gauge.losses("", TEXT, TEXT.index("day"))) <= 5


def test_r46_useful_calls_are_run_and_written_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """One text for all its samples; the best call at each place; what cannot be run counts for nothing."""
    at, end = TEXT.index("0.29"), TEXT.index("It was")
    gains = {"calculator(400 / 1400)": 2.0, "calculator(1400 - 400)": 1.5, "calendar()": 0.4}
    monkeypatch.setattr(toolformer.Gauge, "of", lambda name: None)
    monkeypatch.setattr(toolformer, "gain_of", lambda gauge, text, at, call, result: gains[call])
    rows = [
        text(calls=[[at, "calculator", "1400 - 400"]]), text(calls=[[at, "calculator", "400 / 1400"]]),
        text(calls=[[at, "calculator", "people / 3"]]), text(calls=[[end, "calendar", ""]]),
    ]  # fmt: skip
    tools = [calculator, _calendar]
    (made,) = toolformer.useful([*rows], model="pocket", tools=tools)
    assert isinstance(made, Example)
    assert made.response == TEXT.replace("0.29", "[calculator(400 / 1400) -> 0.29] 0.29")
    assert (made.columns["calls"], made.columns["gains"], made.origin.parents) == (
        1,
        [2.0],
        tuple(row.id for row in rows),
    )
    (both,) = toolformer.useful([*rows], model="pocket", tools=tools, at_least=0.3)
    assert isinstance(both, Example)
    assert "[calendar() -> Saturday, 2026-11-21] It was" in both.response
    reasons = [next(iter(toolformer.useful([row], model="pocket", tools=tools))) for row in (rows[2], rows[3])]
    assert [one.reason for one in reasons if isinstance(one, Lost)] == ["call_failed", "no_gain"]
    with pytest.raises(RecipeError, match="'calendar', which is not among `tools`"):
        list(toolformer.useful([rows[3]], model="pocket", tools=[calculator]))


def _calendar(argument: str) -> str:
    return calendar(argument, today="2026-11-21")


_calendar.__name__ = "calendar"


@pytest.mark.skipif(DATA is None, reason="needs STILLHOUSE_TEST_DATA")
def test_r46_a_model_that_was_trained_elsewhere_scores_calls() -> None:
    """J8: under the published stories260K a result that is what follows gains, one about something else does not."""
    gauge = Gauge.of(str(Path(str(DATA)) / "stories260K" / "hf"))
    story = "Lily had a red ball. She loved the red ball very much."
    at = story.index("red ball very")
    right = toolformer.gain_of(gauge, story, at, "search(what did Lily love)", "Lily loved the red ball very much")
    wrong = toolformer.gain_of(gauge, story, at, "search(what did Lily love)", "1820")
    assert right > 0.2
    assert wrong < right


def test_r46_calls_are_asked_for_at_places(scripted: Scripted) -> None:
    teacher = scripted(
        n=2,
        responses={
            "which is $": ["calculator(400 / 1400)", "I write [calculator(400/1400)] here."],
            "so far:\nOf $": ["None", "Well."],
        },
    )
    given = list(toolformer.calls([text(positions={"calculator": [3, 0, TEXT.index("0.29")]})], teacher, tools=TOLD))
    kept = [one.columns["calls"] for one in given if isinstance(one, Example)]
    assert kept == [[[36, "calculator", "400 / 1400"]], [[36, "calculator", "400/1400"]]]
    assert [one.reason for one in given if isinstance(one, Lost)][:2] == ["none", "no_call"]
    with pytest.raises(RecipeError, match="no column positions"):
        list(toolformer.calls([text()], teacher, tools=TOLD))


def test_r46_a_text_written_again_must_be_the_same_text(scripted: Scripted) -> None:
    again = TEXT.replace("0.29", "[calculator(400 / 1400)] 0.29")
    reply = [again, TEXT, again.replace("hard", "soft"), f"{TEXT} [calculator(1 + 1)]", "Of 1400"]
    given = list(toolformer.written([text()], scripted(n=5, reply=reply), tools=TOLD))
    assert [one.columns["calls"] if isinstance(one, Example) else one.reason for one in given] == [
        [[36, "calculator", "400 / 1400"]], "none", "text_changed", "none", "text_changed",
    ]  # fmt: skip
    assert isinstance(given[0], Example)
    assert given[0].response == TEXT


def test_r46_places_are_the_likeliest_starts_of_words() -> None:
    """R46: where the model gives "[" the highest probability, against its own distribution."""
    teacher = Teacher(model=student_path())
    (made,) = toolformer.positions([text()], teacher, tools=TOLD, above=0.0, most=3)
    assert isinstance(made, Example)
    ats = made.columns["positions"]["calculator"]
    assert len(ats) == 3
    assert all(at == 0 or (TEXT[at - 1] == " " and TEXT[at] != " ") for at in ats)
    gauge = Gauge(teacher.module(), teacher.tokenizer())
    from stillhouse.records import user
    from stillhouse.render import render

    prompt = user(toolformer._insert("calculator", TOLD["calculator"], TEXT))
    told = gauge.openings(prompt, TEXT)
    rendered = render(teacher.tokenizer(), prompt, TEXT)
    with torch.inference_mode():
        probs = teacher.module()(torch.tensor([rendered.ids])).logits[0].double().softmax(-1)
    assert told[0] == pytest.approx(float(probs[rendered.start - 1, gauge.opens].sum()), rel=1e-6)
    assert sorted(sorted(told, key=lambda at: (-told[at], at))[:3]) == ats
    (none,) = toolformer.positions([text()], teacher, tools=TOLD, above=0.99)
    assert isinstance(none, Lost)
    assert none.reason == "no_position"
