"""Expansion on scripted teachers: R01, R02, R04, R24, R51."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.elicit import operators
from stillhouse.elicit.expansion import evolve, fuse, one_call, paraphrase, self_instruct
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Seed, user

DATA = os.environ.get("STILLHOUSE_TEST_DATA")
Scripted = Callable[..., Any]


def reasons(results: Any) -> list[str]:
    return [end.reason for end in results if isinstance(end, Lost)]


class Inventive:
    """Writes lists of instructions that are new for a while; every third is one it wrote before, every seventh unfit."""

    name = "inventive"

    def __init__(self) -> None:
        from stillhouse.teachers.base import Sampling

        self.sampling, self.written, self.prompts = Sampling(temperature=0.7), 0, []  # type: ignore[var-annotated]

    def ask(self, requests):  # type: ignore[no-untyped-def]
        from stillhouse.teachers.base import Answer, Outcome

        for request in requests:
            self.prompts.append(request.messages[-1].content)
            items = []
            for _ in range(8):
                self.written += 1
                number = self.written - 1 if self.written % 3 == 0 else self.written
                text = f"Describe object{number} of city{number * 7} with story{number * 11} and idea{number * 13}"
                items.append("Draw a picture" if self.written % 7 == 0 else text)
            yield Outcome(
                request, Answer("\n".join(f"{9 + i}. {t}" for i, t in enumerate(items))), key=f"k{self.written}"
            )


def test_self_instruct_grows_its_pool_to_exactly_what_is_wanted() -> None:
    """R01, J6: duplicates and unfit ones are lost by name; demonstrations are six human and two machine-made."""
    seeds = [Seed(f"h{i}", user(f"Human task {i}: explain subject{i} to reader{i * 3}")) for i in range(20)]
    teacher = Inventive()
    results = list(self_instruct(seeds, teacher, wanted=100))
    made = [end for end in results if isinstance(end, Seed)]
    assert len(made) == 100
    assert set(reasons(results)) == {"not_novel", "too_few_words"}
    assert len({one.prompt for one in made}) == 100
    assert "Human task" in teacher.prompts[-1]
    shown = [line for line in teacher.prompts[-1].splitlines() if line[:1].isdigit()]
    assert len(shown) == 8
    assert sum("Human task" in line for line in shown) == 6
    assert all(set(one.origin.parents) <= {s.id for s in seeds} | {m.id for m in made} for one in made)


def test_self_instruct_stops_at_its_bound_and_says_nothing_new_twice(scripted: Scripted) -> None:
    seeds = [Seed("h", user("Explain the tides of the sea in detail"))]
    results = list(
        self_instruct(seeds, scripted(reply="1. Explain the tides of the sea in detail"), wanted=50, most_requests=3)
    )
    assert reasons(results) == ["not_novel"] * 3
    with pytest.raises(RecipeError, match="no seeds"):
        list(self_instruct([], scripted(), wanted=1))


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_self_instruct_from_the_175_seed_tasks_to_500_accepted_rows() -> None:
    """R01 on the original human seeds."""
    rows = (Path(DATA or "") / "instruct" / "seed_tasks.jsonl").read_text(encoding="utf-8").splitlines()
    seeds = [Seed(row["id"], user(row["instruction"])) for row in map(json.loads, rows)]
    assert len(seeds) == 175
    made = [end for end in self_instruct(seeds, Inventive(), wanted=500) if isinstance(end, Seed)]
    assert len(made) == 500


def test_one_call_writes_whole_tasks(scripted: Scripted) -> None:
    """R02 (Alpaca): instruction, input and output in one answer; what lacks a part is lost alone."""
    reply = (
        "###\nTask: Add the numbers.\nInput: 2 and 3\nOutput: 5\n"
        "###\nTask: Name a colour.\nInput: none\nOutput: Blue\n"
        "###\nTask: Broken.\nOutput: no input\n"
    )
    seeds = [Seed("h", user("Say hello."), "Hello.")]
    results = list(one_call(seeds, scripted(reply=reply), requests=1))
    made = [end for end in results if isinstance(end, Example)]
    assert [(m.prompt[0].content, m.response) for m in made] == [
        ("Add the numbers.\n\n2 and 3", "5"), ("Name a colour.", "Blue"),
    ]  # fmt: skip
    assert reasons(results) == ["malformed"]
    assert "Output: Hello." in made[0].asked[-1].content
    (cut,) = one_call(seeds, scripted(name="cut", reply=reply, fail={"truncated": 1}), requests=1)
    assert isinstance(cut, Lost)
    assert cut.reason == "truncated"  # never the tasks before the cut
    with pytest.raises(RecipeError, match="no seed has a reference"):
        list(one_call([Seed("h", user("q"))], scripted(), requests=1))


def evolving(
    verdict: str, text: str = "Describe a cat, in exactly {index} words and with its colour."
) -> dict[str, str]:
    return {"Do they ask for the same thing": verdict, "Old request:": f"New request: {text}"}


def test_evolve_goes_on_with_what_was_accepted(scripted: Scripted) -> None:
    """R04, K1: generations, operators by name, lineage to the request before."""
    seed = Seed("h", user("Describe a cat."))
    script = {
        "Do they ask for the same thing": "Different",
        "Old request:\nDescribe a cat.$": "New request: Describe a black cat.",
        "Old request:\nDescribe a black cat.$": "New request: Describe a black cat that sleeps.",
    }
    first, second = evolve([seed], scripted(responses=script), generations=2, operators=["deepen"])
    assert isinstance(first, Seed)
    assert isinstance(second, Seed)
    assert [one.prompt[0].content for one in (first, second)] == [
        "Describe a black cat.",
        "Describe a black cat that sleeps.",
    ]
    assert (first.origin.parents, second.origin.parents) == (("h",), (first.id,))
    assert second.columns == {"operator": "deepen", "generation": 2}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (evolving("Equal"), "no_gain"),
        (evolving("I am not sure"), "judge_no_verdict"),
        (evolving("Different", "Describe a cat!"), "unchanged"),
        (evolving("Different", "Here is the new request for you: a cat"), "leaked_prompt"),
    ],
)
def test_evolve_eliminates_and_puts_back(scripted: Scripted, script: dict[str, str], reason: str) -> None:
    """R04 (a), (d): equal, copied and leaking rewritings are lost; the old request goes into the next generation."""
    results = list(
        evolve([Seed("h", user("Describe a cat."))], scripted(responses=script), generations=2, keep_original=True)
    )
    assert isinstance(results[0], Seed)
    assert reasons(results) == [reason, reason]
    assert {end.parent for end in results if isinstance(end, Lost)} == {"h"}


def test_every_operator_has_a_name_and_unknown_ones_are_refused(scripted: Scripted) -> None:
    """R24 (maths up and down), R60 (code)."""
    assert set(operators.TEXT) | set(operators.CODE) | set(operators.MATHS) <= set(operators.METHODS)
    with pytest.raises(RecipeError, match="did you mean 'deepen'"):
        list(evolve([], scripted(), operators=["deepn"]))


def test_paraphrases_keep_their_label(scripted: Scripted) -> None:
    """R51 (AugGPT): the label stays, an equal wording is left out."""
    seed = Seed("h", user("The film was dull."), "negative")
    results = list(
        paraphrase(
            [seed], scripted(reply="1. A dull film it was.\n2. The film was dull\n3. That film bored me."), count=3
        )
    )
    made = [end for end in results if isinstance(end, Seed)]
    assert [one.prompt[0].content for one in made] == [
        "The film was dull.",
        "A dull film it was.",
        "That film bored me.",
    ]
    assert {one.reference for one in made} == {"negative"}
    assert reasons(results) == ["unchanged"]


def test_fusing_takes_two_parents(scripted: Scripted) -> None:
    """SK01 (Instruction Fusion)."""
    seeds = [Seed(f"h{i}", user(f"request {i}")) for i in range(3)]
    made = list(fuse(seeds, scripted(reply="one out of two")))
    assert len(made) == 3
    assert all(isinstance(one, Seed) and len(set(one.origin.parents)) == 2 for one in made)
    assert reasons(fuse(seeds[:1], scripted(name="alone"))) == ["no_partner"]
