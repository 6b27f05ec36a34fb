import json
import os
from pathlib import Path

import pytest

from stillhouse.errors import RecipeError
from stillhouse.records import Seed, user
from stillhouse.selection import form

DATA = os.environ.get("STILLHOUSE_TEST_DATA")


def reasons(selector, records, **knobs):  # type: ignore[no-untyped-def]
    return [why for _, why in selector(records, **knobs)]


def test_instructions_a_text_model_can_follow() -> None:
    """R01, R02: more than three words, at most 150, nothing but text, a sensible start."""
    texts = [
        "Name three primary colours.",
        "Do this now",
        "word " * 151,
        "Draw a picture of a cat on a mat",
        "Imagine you go to the shop; what do you buy?",
        "Explain why maps of cities matter to people",
        "Write a program that sorts a list",
        "- list the planets of the solar system",
        '"Carpe diem" means what, in plain English?',
        "Discuss the geography of the imagery used",
    ]
    seeds = [Seed(str(i), user(text)) for i, text in enumerate(texts)]
    assert reasons(form.instruction, seeds) == [
        None, "too_few_words", "too_many_words", "asks_for:picture", "asks_for:go to", "asks_for:maps",
        "asks_for_program", "odd_start", None, None,
    ]  # fmt: skip


def test_refusals_are_short_and_early(example) -> None:  # type: ignore[no-untyped-def]
    """R04: "sorry" in fewer than 80 words; a long answer that begins with an apology still answers."""
    texts = [
        "I'm sorry, but I cannot help with that.",
        "As an AI language model, I do not have feelings.",
        "Sorry means to feel regret; it comes from Old English.",
        "I am sorry for the delay. " + "Here is the full explanation of the matter. " * 12,
        "The answer is 7.",
    ]
    assert reasons(form.refusal, [example("p", text) for text in texts]) == ["refusal", "refusal", None, None, None]


def test_endings(example) -> None:  # type: ignore[no-untyped-def]
    """R60, bad input 26: what stops in the middle, although the server said that it was done."""
    long = "The quick brown fox jumps over the lazy dog and then it runs away"
    texts = [
        long,
        long + ".",
        "42",
        "```python\nx = 1",
        "```python\nx = (1\n```",
        "a list (of things",
        "1. one\n2. " + long,
        long + " 7",
    ]
    assert reasons(form.ending, [example("p", text) for text in texts]) == [
        "no_sentence_end", None, None, "open_fence", None, "open_bracket", None, None,
    ]  # fmt: skip


def test_leaked_words_of_the_elicitation_prompt(example) -> None:  # type: ignore[no-untyped-def]
    """R04 (d), R40."""
    records = [
        example("p", "#Given Prompt#: rewrite it"),
        example("p", "what was given, promptly"),
        example("given prompt", "r"),
    ]
    assert reasons(form.leaked, records, phrases=["given prompt"]) == [
        "leaked:given prompt",
        None,
        "leaked:given prompt",
    ]
    assert reasons(form.leaked, records, phrases=["given prompt"], on="response")[-1] is None
    with pytest.raises(RecipeError, match="phrases is empty"):
        list(form.leaked(records, phrases=[]))


def test_echo_and_empty_talk(example) -> None:  # type: ignore[no-untyped-def]
    """R01 (input equals output, trailing colon), R04 (c: only punctuation and stop words)."""
    records = [
        example("Say hello", "say HELLO!"),
        example("q", "..."),
        example("q", "It is as it was, and that is it."),
        example("q", "no"),
        example("q", "The colours are:"),
        example("q", "Red and blue."),
    ]
    assert reasons(form.echo, records) == ["echo", "says_nothing", "says_nothing", None, "ends_with_colon", None]


def test_loops(example) -> None:  # type: ignore[no-untyped-def]
    """R40: clauses that repeat; a refrain of two lines is no loop."""
    circle = "The cat sat on the mat and looked at the dog. " * 6
    refrain = (
        "Row, row, row your boat\ngently down the stream\n" * 2
        + "merrily life is but a dream and then some more words come"
    )
    assert reasons(form.loops, [example("p", t) for t in (circle, refrain, "no\nno\nno\nno", "short")]) == [
        "loop",
        None,
        "loop",
        None,
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The rain in the north is heavier than it was last year, and it will be for some time.", "en"),
        ("Der Regen im Norden ist in diesem Jahr stärker, als er es im letzten Jahr war.", "de"),
        ("La pluie dans le nord est plus forte que celle des années passées.", "fr"),
        ("La lluvia en el norte es más fuerte que la de los años pasados.", "es"),
        ("Дождь на севере в этом году сильнее.", "ru"),
        ("今年は北の方で雨が強いです。", "ja"),
        ("今年北方的雨比去年大", "zh"),
        ("x = 3; y = 4", None),
    ],
)
def test_language_is_told_by_script_and_function_words(text: str, code: str | None) -> None:
    """R07."""
    assert form.detected(text) == code


def test_language_keeps_what_cannot_be_told_and_refuses_unknown_codes(example) -> None:  # type: ignore[no-untyped-def]
    records = [example("Was ist das für ein Haus, und wem gehört es?", "Das ist ein Haus."), example("2 + 2", "4")]
    assert reasons(form.language, records, languages=["en"]) == ["language:de", None]
    with pytest.raises(RecipeError, match="cannot tell xx"):
        list(form.language(records, languages=["xx"]))


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_human_written_seed_tasks_pass_the_form_checks(example) -> None:  # type: ignore[no-untyped-def]
    """R01 on its own 175 seed tasks: hardly any is in another language, a refusal or a loop."""
    path = Path(DATA or "") / "instruct" / "seed_tasks.jsonl"
    tasks = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    records = [example(task["instruction"], task["instances"][0]["output"]) for task in tasks]
    assert len(records) == 175
    assert sum(why is not None for why in reasons(form.language, records)) <= 3
    assert sum(why is not None for why in reasons(form.refusal, records)) <= 4  # apologies that were asked for
    assert sum(why is not None for why in reasons(form.loops, records)) <= 2
    assert sum(why is None for why in reasons(form.instruction, records)) >= 150
