"""Reading structured answers: what must be refused, and what LaTeX and quotation marks must survive (teacher-calls 11, 14)."""

import json
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from stillhouse.teachers.asking.latex import latex_mended
from stillhouse.teachers.asking.reading import Unreadable, looks_cut, loops, read_json, read_model
from stillhouse.teachers.asking.refusals import refuses

RECORD = {
    "question": 'Why "tides"?',
    "answer": "The moon pulls {the sea}.",
    "steps": [1, 2.5, None, True],
    "n": {"a": []},
}


def reason(text: str, *, repair: bool = False) -> str:
    with pytest.raises(Unreadable) as raised:
        read_json(text, repair=repair)
    return raised.value.reason


@pytest.mark.parametrize("repair", [False, True])
def test_cut_at_every_character(repair: bool) -> None:
    """Bad input 1: no prefix of a record becomes a record, least of all by repair."""
    whole = json.dumps(RECORD)
    assert read_json(whole).value == RECORD
    for end in range(len(whole)):
        assert reason(whole[:end], repair=repair) in ("cut_off", "no_json")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RECORD, indent=2),
        f"Here you are:\n```json\n{json.dumps(RECORD)}\n```\nAnything else?",
        f"```\n{json.dumps(RECORD)}\n```",
        f"Sure! {json.dumps(RECORD)} Hope it helps (1).",
        f"\ufeff{json.dumps(RECORD)}\n",
    ],
)
def test_exactly_one_value_is_found(text: str) -> None:
    assert read_json(text).value == RECORD


def test_lists_are_found_where_there_is_no_object_around() -> None:
    assert read_json("The scores: [1, 2, 3].").value == [1, 2, 3]
    assert read_json('[{"a": 1}, {"a": 2}]').value == [{"a": 1}, {"a": 2}]


UNREADABLE = {
    "two objects": ('{"a": 1} {"a": 2}', "several"),
    "prose and two": ('First {"a": 1}, then {"a": 2}.', "several"),
    "two fences": ('```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```', "several"),
    "prose": ("I cannot answer that.", "no_json"),
    "nothing": ("", "no_json"),
    "a bare number": ("10", "no_json"),
    "duplicate key": ('{"score": 1, "score": 9}', "duplicate_key"),
    "NaN": ('{"score": NaN}', "not_a_number"),
    "Infinity": ('{"score": -Infinity}', "not_a_number"),
    "1e400": ('{"score": 1e400}', "not_a_number"),
    "5,000 digits": ('{"score": ' + "9" * 5000 + "}", "not_a_number"),
    "depth 10,000": ("".join(f"[{n}," for n in range(10_000)), "too_deep"),
    "two million characters": ('{"a": "' + "x y" * 700_000 + '"}', "too_large"),
    "lone surrogate": ('{"a": "\\ud83d"}', "bad_character"),
    "NUL": ('{"a": "\\u0000"}', "bad_character"),
    "trailing comma": ('{"a": 1,}', "syntax"),
    "endless white space": ('{"a": 1' + " " * 500, "loops"),
    "placeholders": ('{"a": "' + "lorem " * 100 + '"}' + "..." * 200, "loops"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_must_be_refused(name: str) -> None:
    """Bad inputs 2, 3, 14, 24: with a reason, and never with a RecursionError."""
    text, why = UNREADABLE[name]
    assert reason(text) == why


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "b": [1, 2,],}', {"a": 1, "b": [1, 2]}),
        ("{'a': 'it''s', 'b': 'don't'}".replace("''", "'"), {"a": "it's", "b": "don't"}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ("{'say': 'a \"word\"'}", {"say": 'a "word"'}),
    ],
)
def test_repair_is_asked_for_and_told(text: str, value: object) -> None:
    assert reason(text) == "syntax"
    read = read_json(text, repair=True)
    assert (read.value, read.flags) == (value, ("repaired",))


class Scored(BaseModel):
    score: int = Field(ge=1, le=10)
    verdict: Literal["better", "worse"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"score": "8", "verdict": "better"}', "score"),
        ('{"score": 85, "verdict": "better"}', "score"),
        ('{"score": 0, "verdict": "better"}', "score"),
        ('{"score": 8.0, "verdict": "better"}', "score"),
        ('{"score": 8, "verdict": "much better"}', "verdict"),
        ('{"score": 8}', "verdict"),
    ],
)
def test_a_schema_is_strict(text: str, why: str) -> None:
    """Bad input 21: out of range is unreadable, never clamped and never a default (D8, D11)."""
    with pytest.raises(Unreadable, match=f"schema: {why}"):
        read_model(text, Scored)


def test_a_schema_that_fits() -> None:
    assert read_model('```json\n{"score": 8, "verdict": "worse"}\n```', Scored) == (
        Scored(score=8, verdict="worse"),
        (),
    )


NAMES = (
    "beta bar binom boxed begin big bmod bullet bigcup bf frac forall flat frown fbox nabla neq neg not notin nexists "
    "nleq rho right rangle ref rightarrow rceil rfloor root theta tau times text tan top tfrac textbf tilde triangle "
    "therefore uparrow upsilon underline underbrace alpha sum sqrt pi int leq lambda cdot gamma delta epsilon infty "
    "partial quad left ldots log sin cos in mathbb vec hat"
)
COMMANDS = NAMES.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_latex_with_single_backslashes_survives(command: str) -> None:
    """14.4: sixty commands and more, half of which a JSON parser would turn into control characters without a word."""
    for after in ("{x}", " x", "_1", "", "^2 = \\" + command + "(y)"):
        written = f'{{"a": "so \\{command}{after}", "b": 1}}'
        read = read_json(written)
        assert read.value == {"a": f"so \\{command}{after}", "b": 1}
        assert read.flags == ("latex_fixed",)


@pytest.mark.parametrize("command", COMMANDS)
def test_latex_written_correctly_is_left_alone(command: str) -> None:
    value = {"a": f"so \\{command}{{x}}\nnext\tcell \\\\ end"}
    read = read_json(json.dumps(value))
    assert (read.value, read.flags) == (value, ())


def test_kinds_mixed_in_one_string() -> None:
    read = read_json(r'{"a": "\frac{1}{2} \alpha \times \nabla \, \u00e9 \uparrow \" \/ \n new"}')
    assert read.value == {"a": '\\frac{1}{2} \\alpha \\times \\nabla \\, \u00e9 \\uparrow " / \n new'}


@pytest.mark.parametrize(
    "text", [r"one\nnext", r"a\tnumber", r"\n\nabout", r"x\rest", r"col\table", r"\n1", r"\t", r"a\nThe end"]
)
def test_real_white_space_stays(text: str) -> None:
    assert read_json(f'{{"a": "{text}"}}').value == json.loads(f'{{"a": "{text}"}}')


@pytest.mark.parametrize("text", [r"\nu = 3", r"x \to y", r"a \ne b"])
def test_what_could_be_both_is_flagged_and_not_guessed(text: str) -> None:
    read = read_json(f'{{"a": "{text}"}}')
    assert read.flags == ("latex_ambiguous",)
    assert read.value == json.loads(f'{{"a": "{text}"}}')


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\x00")), inner)
        ),
        max_leaves=8,
    )
)
def test_what_json_writes_is_read_back(value: object) -> None:
    """Whatever a correct writer wrote comes back as it was, unless it holds a backslash command that is also a name."""
    text = json.dumps({"a": value})
    mended, flags = latex_mended(text)
    if not flags:
        assert mended == text
    if not flags and not loops(text):
        assert read_json(text).value == {"a": value}


LABELLED = [
    (line[0] == "-", line[2:])
    for line in (Path(__file__).parent / "refusals.txt").read_text(encoding="utf-8").splitlines()
    if line.startswith(("- ", "+ "))
]


def test_refusals_are_told_from_answers() -> None:
    """Bad input 6: 201 labelled answers. Measured: precision 1.00 (95 of 95), recall 0.94 (95 of 101)."""
    found = [(labelled, refuses(text)) for labelled, text in LABELLED]
    right, told = found.count((True, True)), sum(said for _, said in found)
    assert len(LABELLED) == 201
    assert right / told >= 0.99
    assert right / sum(labelled for labelled, _ in found) >= 0.94


def test_no_answer_of_others_is_taken_for_a_refusal(data: Path) -> None:
    """Answers that people and models gave to real tasks, among them letters of regret and apologies."""
    texts = []
    for name in ("instruct/seed_tasks.jsonl", "instruct/user_oriented_instructions.jsonl"):
        for line in (data / name).read_text(encoding="utf-8").splitlines():
            texts += [instance["output"] for instance in json.loads(line)["instances"]]
    rows = json.loads((data / "preference/testset-v1.json").read_text(encoding="utf-8"))
    for row in rows if isinstance(rows, list) else rows.values():
        texts += [row[name] for name in ("response1", "response2") if isinstance(row, dict) and name in row]
    assert len(texts) > 900
    assert [text for text in texts if isinstance(text, str) and refuses(text)] == []


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("The list (a, b", True),
        ('He said "go', True),
        ("Tides are caused by the moon. The sun adds to them. In spring the two work toge", True),
        ("The answer is 4.", False),
        ("42", False),
        ("wooded area", False),
        ("Let f(x) = x^2. Then f(2) = 4.", False),
    ],
)
def test_texts_that_look_cut(text: str, cut: bool) -> None:
    """Bad input 26: legal JSON around a sentence without its end."""
    assert (looks_cut(text) is not None) == cut
