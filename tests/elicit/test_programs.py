"""Programs that are run before they are learned: real interpreters, a scripted teacher."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from stillhouse.elicit.programs import cleaned, interleaved, with_tests
from stillhouse.elicit.self_knowledge import reflected
from stillhouse.graders import code, math
from stillhouse.records import Example, Lost, Seed, user

Scripted = Callable[..., Any]
PASSES = partial(code.passes, sandbox="process")
TASK = Seed("s1", user("Write a function double that doubles a number."))
SUM = Seed("s2", user("What is 17 times 23?"), "391")


def block(text: str) -> str:
    return f"```python\n{text}\n```"


def reasons(results: Any) -> list[str]:
    return [each.reason if isinstance(each, Lost) else each.response for each in results]


def test_the_first_solution_that_passes_is_kept(scripted: Scripted) -> None:
    """R60 (Code Llama): of three solutions the first fails; the tests are the reference and the task the whole prompt."""
    tries = [
        block("def double(n): return n + 2"),
        block("def double(n): return 2 * n"),
        block("def double(n): return n + n"),
    ]
    script = {"Write tests of": block("assert double(2) == 4\nassert double(5) == 10"), "must pass": tries}
    (made,) = with_tests([TASK], scripted(responses=script), grader=PASSES, solutions=3)
    assert isinstance(made, Example)
    assert (made.response, made.prompt) == (tries[1], TASK.prompt)
    assert made.reference == "assert double(2) == 4\nassert double(5) == 10"
    assert len(made.origin.keys) == 2


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        (block("assert True"), "vacuous_tests"),
        (block("double(2)"), "no_assert"),
        ("assert double(2) == 4", "no_program"),
        (block("assert double(2 == 4"), "not_python"),
        (block("assert double(2) == 5"), "no_solution_passes"),
    ],
)
def test_tests_that_prove_nothing_are_not_used(scripted: Scripted, tests: str, reason: str) -> None:
    """R60."""
    script = {"Write tests of": tests, "must pass": block("def double(n): return 2 * n")}
    assert reasons(with_tests([TASK], scripted(responses=script), grader=PASSES, solutions=2)) == [reason]


def test_a_step_that_breaks_the_program_is_left_out(scripted: Scripted) -> None:
    """R60 (Code Clean): renaming is taken, a broken split is not, the plan is put before what was taken."""
    one = Example("e", TASK.prompt, block("def double(n):\n    return 2 * n"), "assert double(3) == 6")
    script = {
        "names that say": block("def double(number):\n    return 2 * number"),
        "functions of their own": block("def double(number):\n    return twice(number)"),
        r"a short plan.*": block("# Plan: add it to itself.\ndef double(number):\n    return number + number"),
    }
    (made,) = cleaned([one], scripted(responses=script), grader=PASSES)
    assert isinstance(made, Example)
    assert made.columns == {"was": one.response, "accepted": [1, 3]}
    assert made.response.startswith("```python\n# Plan: add it")
    wrong = Example("w", TASK.prompt, block("def double(n): return n"), "assert double(3) == 6")
    same = scripted(name="same", reply=one.response)
    assert reasons(cleaned([wrong, one], same, grader=PASSES)) == ["wrong", "unchanged"]


def test_reasoning_goes_on_from_what_was_printed(scripted: Scripted) -> None:
    """R22 (ToRA): the second program knows the first one's variables, an error is shown and mended, outputs are prompts."""
    script = {
        "391": "That is all. The answer is 391.",
        "NameError": "I forgot.\n" + block("print(tens + 3 * 17)"),
        r"printed:\n340": "Now the rest.\n" + block("print(tens + rest)") + "\nwhich surely gives " + block("12"),
        "Where a calculation": "First the tens.\n" + block("tens = 20 * 17\nprint(tens)"),
    }
    made = list(interleaved([SUM], scripted(responses=script), grader=math.equal, sandbox="process"))
    assert all(isinstance(one, Example) for one in made)
    assert [one.columns["turn"] for one in made] == [1, 2, 3, 4]
    assert "which surely" not in made[1].response  # it was written before the output was known
    assert "NameError" in made[2].prompt[-1].content
    assert made[3].prompt[-1].content == "The program printed:\n391"
    assert made[3].prompt[0] == SUM.prompt[0]


def test_solutions_that_do_not_end_right_are_lost(scripted: Scripted) -> None:
    """R22: by what is missing; each sample goes its own way."""
    first = ["The answer is 390.", "I do not know.", block("print(1)")]
    results = list(interleaved([SUM], scripted(n=3, reply=first), grader=math.equal, sandbox="process", turns=1))
    assert reasons(results) == ["wrong", "no_answer", "too_many_turns"]
    assert [each.slot for each in results] == [0, 1, 2]


def test_each_try_is_told_more(scripted: Scripted) -> None:
    """R65 (SciGLM): alone, after reflection, with the answer shown; the mark and what stands before it are not learnt."""
    known = {
        "The right answer is 391": "[Reflection] I mixed up.\n[Solution] It is 20 and 3 times 17. The answer is 391.",
        "whose answer is wrong": "[Reflection] Hm.\n[Solution] Perhaps less. The answer is 389.",
        "17 times": "At a guess. The answer is 390.",
    }
    (made,) = reflected([SUM], scripted(responses=known), grader=math.equal)
    assert isinstance(made, Example)
    assert (made.columns["tries"], made.prompt) == (3, SUM.prompt)
    assert made.response == "It is 20 and 3 times 17. The answer is 391."
    assert "The answer is 389." in made.asked[-1].content  # the latest attempt is the one that is shown


def test_the_third_failure_is_the_last(scripted: Scripted) -> None:
    """R65: what cannot be read counts as a failed try, too."""
    blind = scripted(reply="The answer is 1.")
    assert reasons(reflected([SUM, Seed("x", user("Why?"))], blind, grader=math.equal)) == ["no_reference", "sections"]
    wrong = scripted(name="wrong", reply="[Solution] The answer is 1.")
    assert reasons(reflected([SUM], wrong, grader=math.equal)) == ["wrong"]
