"""labeling.answer and labeling.reason, on scripts and on the recorded answers of real teachers."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.elicit.asking import Unparsed
from stillhouse.elicit.labeling import answer, rationale, reason
from stillhouse.graders import choice, math
from stillhouse.records import Example, Lost, Seed, content_id, user
from stillhouse.selection.quality import correct
from stillhouse.teachers.base import Sampling
from stillhouse.teachers.calls import Calls
from stillhouse.teachers.recorded import Teacher as Recorded

DATA = os.environ.get("STILLHOUSE_TEST_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
STEPS = Path(DATA or "") / "step-by-step"

SEED = Seed("s1", user("What is 3 + 4?"), "7", {"level": 1})


def test_answer_keeps_lineage_and_the_seed_s_own_prompt(scripted: Callable[..., Any]) -> None:
    teacher = scripted(n=2, reply=["7", " seven\n"])
    one, two = answer([SEED], teacher, instruction="Be brief.")
    assert isinstance(one, Example)
    assert isinstance(two, Example)
    assert (one.prompt, one.response, two.response) == (SEED.prompt, "7", "seven")
    assert one.asked[-1].content == "What is 3 + 4?\n\nBe brief."
    assert (one.reference, one.columns, one.origin.parents, one.origin.teacher) == (
        "7",
        {"level": 1},
        ("s1",),
        "script",
    )
    assert one.id != two.id
    assert one.origin.keys != two.origin.keys


def test_keep_instruction_trains_under_what_was_asked(scripted: Callable[..., Any]) -> None:
    (kept,) = answer([SEED], scripted(reply="7"), instruction="Be brief.", keep_instruction=True)
    assert isinstance(kept, Example)
    assert kept.prompt == kept.asked


def test_every_slot_ends_in_one_state(scripted: Callable[..., Any]) -> None:
    """Ten seeds, three samples, every fourth answer cut off: 30 slots, none missing."""
    seeds = [Seed(f"s{i}", user(f"q {i}"), str(i)) for i in range(10)]
    ends = list(answer(seeds, scripted(n=3, fail={"truncated": 4})))
    lost = [end for end in ends if isinstance(end, Lost)]
    assert len(ends) == 30
    assert len(lost) >= 7
    assert {(end.reason, end.state) for end in lost} == {("truncated", "quarantined")}


def test_relabel_swaps_the_teacher_and_keeps_the_prompt(scripted: Callable[..., Any]) -> None:
    """R02 (LLaMA-GPT4): prompts stay, answers are the new teacher's."""
    (old,) = answer([SEED], scripted(reply="8"))
    assert isinstance(old, Example)
    (new,) = answer([old], scripted(name="strong", reply="7"))
    assert isinstance(new, Example)
    assert (new.prompt, new.response, new.origin.parents) == (SEED.prompt, "7", (old.id,))


def test_reason_asks_for_reasoning_and_refuses_what_has_no_answer(scripted: Callable[..., Any]) -> None:
    replies = ["3 and 4 make 7. The answer is 7.", "It is hard to say.", "3 and 4 make", "So the answer is (3 +"]
    ends = list(reason([SEED], scripted(n=4, reply=replies)))
    assert isinstance(ends[0], Example)
    assert ends[0].response == replies[0]
    assert ends[0].prompt == SEED.prompt
    assert "step by step" in ends[0].asked[-1].content
    assert [(e.reason, e.state, e.slot) for e in ends[1:] if isinstance(e, Lost)] == [
        ("unparsed", "quarantined", 1),
        ("truncated", "quarantined", 2),
        ("truncated", "quarantined", 3),
    ]


def test_rationale_splits_text_and_cuts_run_on() -> None:
    """R20: reasoning apart from the final answer, the invented next question gone."""
    raw = "84 points in 2 rounds. 84 / 2 = 42. So the answer is (84 / 2).\n\nQ: There are 120 students"
    parsed = rationale(raw, cut=["\n\nQ:"])
    assert not isinstance(parsed, Unparsed)
    assert parsed.text == "84 points in 2 rounds. 84 / 2 = 42. So the answer is (84 / 2)."
    assert parsed.reasoning == "84 points in 2 rounds. 84 / 2 = 42."
    assert parsed.final == "(84 / 2)"
    assert rationale("Q: only a question", cut=["Q:"]) == Unparsed("empty")
    free = rationale("Because.", final=[])
    assert not isinstance(free, Unparsed)
    assert (free.reasoning, free.final) == ("Because.", "")


def rows(name: str) -> list[Any]:
    text = (STEPS / name).read_text(encoding="utf-8")
    return (
        json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line]
    )


def seeds_of(source: list[dict[str, Any]], prompt: str, reference: str) -> list[Seed]:
    return [Seed(content_id(i, row[prompt]), user(row[prompt]), row[reference]) for i, row in enumerate(source)]


def elicited(calls: Calls, asked: list[Seed], **recorded: Any) -> tuple[list[Example], list[Lost]]:
    teacher = calls.teacher("palm", Recorded(model="palm-540b", match="exact", **recorded), Sampling())
    ends = list(reason(asked, teacher, instruction=None, cut=["\n\nQ:"]))
    assert len(ends) == len(asked)
    return [e for e in ends if isinstance(e, Example)], [e for e in ends if isinstance(e, Lost)]


@needs_data
def test_svamp_rationales_of_a_real_teacher(calls: Calls) -> None:
    """R20 on SVAMP: 500 raw answers that run on; cut, parsed, graded against gold expressions."""
    source = rows("svamp/svamp_train.json")[:500]
    examples, lost = elicited(
        calls,
        seeds_of(source, "input", "label"),
        path=str(STEPS / "svamp/llm/train_CoT_0.json"),
        layout="aligned",
        seeds=str(STEPS / "svamp/svamp_train.json"),
        prompt_field="input",
    )
    assert [e.reason for e in lost] == ["truncated"] * 9  # six never reach an answer, three stop inside it
    assert not any("\n\nQ:" in example.response for example in examples)
    graded = list(correct(examples, grader=math.equal))
    kept = [example for example, why in graded if why is None]
    assert {why for _, why in graded} <= {None, "wrong"}
    assert len(kept) == 375  # as evaluating the expressions of both sides gives


@needs_data
def test_commonsense_choices_of_a_real_teacher(calls: Calls) -> None:
    """R20 on CommonsenseQA: option letter and text against gold; "either (a) or (e)" is no answer."""
    source = rows("cqa/cqa_train.json")[:1000]
    raw = rows("cqa/llm/train_CoT_0.json")
    asked = {row["question"] for row in source}
    examples, _ = elicited(
        calls,
        seeds_of(source, "question", "answer"),
        path=str(STEPS / "cqa/llm/train_CoT_0.json"),
        layout="aligned",
        seeds=str(STEPS / "cqa/cqa_train.json"),
        prompt_field="question",
    )
    assert len(raw) == 1000
    assert len(asked) > 990
    assert len(examples) >= 950
    kept = [example for example, why in correct(examples, grader=choice.equal) if why is None]
    assert len(kept) == 746  # 735 by exact text behind the letter, and 11 that differ in capitals only
    either = [e for e in examples if "either (" in e.response]
    assert either
    assert all(why == "wrong" for _, why in correct(either, grader=choice.equal))


@needs_data
def test_the_several_endings_of_another_real_teacher() -> None:
    """Parsing and grading only: "Hence the answer is a - b = c. Answer: c", units, bare expressions."""
    source = rows("llama3/svamp_train_llama3.json")
    parsed = [rationale(row["gen_label"]) for row in source]
    read = [(p, row) for p, row in zip(parsed, source) if not isinstance(p, Unparsed)]
    assert len(read) / len(source) > 0.85
    grades = math.equal([p.text for p, _ in read], [row["org_label"] for _, row in read], symbolic=False)
    assert {g.value for g in grades} <= {0.0, 1.0}
    assert 515 <= sum(g.value or 0 for g in grades) <= 545  # this teacher is wrong on a quarter of them
