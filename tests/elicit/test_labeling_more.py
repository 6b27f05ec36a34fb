"""The other ways of labeling, each on a scripted teacher, each naming its row of the survey."""

from collections.abc import Callable
from typing import Any

import pytest

from stillhouse.elicit.asking import Unparsed, numbered, sections
from stillhouse.elicit.labeling import (
    as_reference,
    classify,
    explain,
    program,
    rationale_and_label,
    reference,
    strategy,
    transcript,
)
from stillhouse.elicit.parsing import turns
from stillhouse.elicit.strategies import measured
from stillhouse.errors import RecipeError
from stillhouse.graders import math
from stillhouse.graders.text import contains
from stillhouse.records import Example, Lost, Message, Seed, user

Scripted = Callable[..., Any]
SEED = Seed("s1", user("What is 3 + 4?"), "7", {"kind": "sum"})


def ends(results: Any) -> list[str]:
    return [end.reason if isinstance(end, Lost) else "" for end in results]


def test_program_of_thought_is_one_block(scripted: Scripted) -> None:
    """R22."""
    replies = ["Sure:\n```python\nprint(3 + 4)\n```\nDone.", "print(7)", "```python\na\n```\n```python\nb\n```"]
    results = list(program([SEED], scripted(n=3, reply=replies)))
    assert ends(results) == ["", "no_program", "several_programs"]
    assert results[0].response == "```python\nprint(3 + 4)\n```"  # type: ignore[union-attr]
    assert results[0].prompt == SEED.prompt  # type: ignore[union-attr]


def test_explanations_keep_their_system_message_and_do_not_depend_on_neighbours(scripted: Scripted) -> None:
    """R05 (Orca): the student learns under the system message the teacher saw."""
    seeds = [Seed(f"s{i}", user(f"question {i}"), "a") for i in range(30)]
    systems = ["Explain simply.", "Explain fully."]
    made = list(explain(seeds, scripted(reply="because"), systems=systems))
    assert all(m.prompt == m.asked and m.prompt[0].role == "system" for m in made)  # type: ignore[union-attr]
    used = [m.prompt[0].content for m in made]  # type: ignore[union-attr]
    assert set(used) == set(systems)
    alone = list(explain(seeds[7:8], scripted(name="again", reply="because"), systems=systems))
    assert alone[0].prompt == made[7].prompt  # type: ignore[union-attr]


def test_explanations_suit_the_kind_of_task(scripted: Scripted) -> None:
    """R05 (Orca): the message is drawn among those of the row's own kind."""
    systems = {"sum": ["Show the sum."], "fact": ["Name the source.", "Be brief."]}
    seeds = [Seed(f"s{i}", user(f"q {i}"), "a", {"kind": ("sum", "fact")[i % 2]}) for i in range(30)]
    made = [
        one for one in explain(seeds, scripted(reply="because"), systems=systems, by="kind") if isinstance(one, Example)
    ]
    assert all(one.prompt[0].content in systems[one.columns["kind"]] for one in made)
    assert len({one.prompt[0].content for one in made}) == 3
    with pytest.raises(RecipeError, match="has kind 'poem'"):
        list(explain([Seed("x", user("q"), None, {"kind": "poem"})], scripted(), systems=systems, by="kind"))
    with pytest.raises(RecipeError, match="as a list, or as lists"):
        list(explain(seeds, scripted(), systems=systems))


def test_the_strategy_that_helps_is_measured(scripted: Scripted) -> None:
    """R06 (Orca 2): sums are right step by step, facts whichever way, so that the first listed is taken for them."""
    script = {"Step by step.*q sum": "It is 7.", "Directly.*q sum": "It is 8.", "q fact": "It is 7."}
    seeds = [
        Seed(f"{kind}{i}", user(f"q {kind} {i}"), "7", {"kind": kind}) for kind in ("sum", "fact") for i in range(5)
    ]
    ways = {"direct": "Directly.", "steps": "Step by step."}
    made = list(
        measured([*seeds, Seed("x", user("q"), None, {"kind": "odd"})], scripted(responses=script), strategies=ways, by="kind",
                 grader=contains, probes=3)
    )  # fmt: skip
    assert ends(made) == [""] * 10 + ["no_reference"]
    assert {(one.columns["kind"], one.columns["strategy"]) for one in made[:10]} == {
        ("sum", "steps"),
        ("fact", "direct"),
    }  # type: ignore[union-attr]
    assert made[0].columns["strategy_scores"] == {"direct": 0.0, "steps": 1.0}  # type: ignore[union-attr]
    assert made[0].prompt == seeds[0].prompt and made[0].reference == "7"  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="no column 'kind'"):
        list(measured([Seed("y", user("q"), "7")], scripted(), strategies=ways, by="kind", grader=contains))


def test_the_strategy_is_erased_from_what_the_student_sees(scripted: Scripted) -> None:
    """R06 (Orca 2): elicitation prompt and training prompt differ."""
    strategies = {"sum": "Think step by step.", "fact": "Answer directly."}
    (made,) = strategy([SEED], scripted(reply="7"), strategies=strategies, by="kind", generic="You are careful.")
    assert isinstance(made, Example)
    assert made.asked[0] == Message("system", "Think step by step.")
    assert made.prompt == (Message("system", "You are careful."), *SEED.prompt)
    with pytest.raises(RecipeError, match="holds 'poem'"):
        list(
            strategy(
                [Seed("x", user("q"), None, {"kind": "poem"})], scripted(reply="7"), strategies=strategies, by="kind"
            )
        )


def test_rationale_and_label_are_two_tasks_of_one_prompt(scripted: Scripted) -> None:
    """R20: "predict: x" -> label, "explain: x" -> reasoning; wrong ones give neither."""
    replies = ["3 and 4 make 7. The answer is 7.", "3 and 4 make 8. The answer is 8.", "The answer is 7."]
    results = list(rationale_and_label([SEED], scripted(n=3, reply=replies), grader=math.equal))
    label, why, *lost = results
    assert isinstance(label, Example)
    assert isinstance(why, Example)
    assert (label.prompt[-1].content, label.response) == ("predict: What is 3 + 4?", "7")
    assert (why.prompt[-1].content, why.response) == ("explain: What is 3 + 4?", "3 and 4 make 7.")
    assert label.id != why.id
    assert [(end.reason, end.state) for end in lost if isinstance(end, Lost)] == [
        ("wrong", "dropped"), ("no_reasoning", "quarantined"),
    ]  # fmt: skip
    (gold, _) = rationale_and_label([SEED], scripted(name="g", reply="So 3 + 4. The answer is (3 + 4)."), gold=True)
    assert isinstance(gold, Example)
    assert gold.response == "7"


def test_classes_are_read_whole(scripted: Scripted) -> None:
    """R53, SK09: a class name inside a word, in prose or unknown is no class."""
    labels = {"art": "about pictures and music", "party": "about feasts"}
    replies = [
        "Class: art",
        "**Class:** Party.",
        "art",
        "This is art, clearly",
        "Class: artful",
        "Class: art\nClass: party",
    ]
    results = list(classify([SEED], scripted(n=6, reply=replies), labels=labels))
    assert ends(results) == ["", "", "", "no_class", "no_class", "no_class"]
    assert [r.response for r in results[:3]] == ["art", "party", "art"]  # type: ignore[union-attr]
    assert "about feasts" in results[0].asked[-1].content  # type: ignore[union-attr]
    assert results[0].prompt == SEED.prompt  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="two classes"):
        list(classify([SEED], scripted(), labels={"one": "x"}))


TALK = "[Human] Hello, what is rain?\n[AI] Water from clouds.\n[Human] And snow?\n[AI] Frozen water.\n[Human] Tha"


def test_a_transcript_becomes_one_example_per_answer(scripted: Scripted) -> None:
    """R08 (Baize): turns alternate, the unfinished last one is left out, every answer is learnt under what came before."""
    first, second = transcript([SEED], scripted(reply=TALK))
    assert isinstance(first, Example)
    assert isinstance(second, Example)
    assert (first.response, second.response) == ("Water from clouds.", "Frozen water.")
    assert [m.role for m in second.prompt] == ["user", "assistant", "user"]


def test_transcripts_that_are_none() -> None:
    assert turns("[AI] Hello\n[Human] Hi", "[Human]", "[AI]") == Unparsed("no_alternation")
    assert turns("[Human] a\n[Human] b\n[AI] c", "[Human]", "[AI]") == Unparsed("no_alternation")
    assert turns("[Human]\n[AI] c", "[Human]", "[AI]") == Unparsed("empty_turn")
    assert isinstance(turns("Just prose.", "[Human]", "[AI]"), Unparsed)


def test_gold_answers_need_no_teacher() -> None:
    """The control of every comparison: known answers under the same prompts."""
    made, lost = reference([SEED, Seed("s2", user("q"))], template="The answer is {reference}.")
    assert isinstance(made, Example)
    assert (made.response, made.prompt) == ("The answer is 7.", SEED.prompt)
    assert isinstance(lost, Lost)
    assert lost.reason == "no_reference"


def test_lists_and_sections() -> None:
    assert numbered("Here:\n1. one\n2) two\n   more\n**3.** three") == ["one", "two\nmore", "three"]
    assert isinstance(numbered("no list"), Unparsed)
    assert sections("[A] x\n[B]\ny\nz", ("A", "B")) == {"A": "x", "B": "y\nz"}
    assert isinstance(sections("[A] x", ("A", "B")), Unparsed)
    assert isinstance(sections("[A] x\n[A] y\n[B] z", ("A", "B")), Unparsed)
    assert sections("[A]\n[B] z", ("A", "B")) == Unparsed("empty_section")


def test_answers_become_references() -> None:
    """R12: what the teacher said is what the student's answer is held against."""
    example = SEED.answered("seven", asked=SEED.prompt, teacher="strong")
    (seed,) = as_reference([example])
    assert (seed.prompt, seed.reference, seed.origin.parents, seed.columns) == (
        SEED.prompt,
        "seven",
        (example.id,),
        {"kind": "sum"},
    )
