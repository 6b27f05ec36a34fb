"""Teachers at tasks of language: what a classifier learns of them, weak groups, explained labels, errors, readers' wishes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.elicit import annotating, distilled, faults, recommending, weak_groups
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Seed, user
from stillhouse.selection.influence import Meter

Scripted = Callable[..., Any]
LABELS = {"kind": "the writer is pleased", "unkind": "the writer is not"}


def ends(results: Any) -> list[str]:
    return [each.reason if isinstance(each, Lost) else each.response for each in results]


def texts(count: int) -> list[Example]:
    """Half explain something, half sell something."""
    good = "Water number {n} boils because heat makes its parts move, and this is why the lid lifts."
    bad = "Offer number {n} ends today, buy now, click here, subscribe, free shipping."
    return [Example(f"t{n}", (), (good if n % 2 else bad).format(n=n)) for n in range(count)]


def test_a_few_ratings_tell_what_all_are_worth(scripted: Scripted) -> None:
    """R11 (phi): 40 of 200 texts are rated; the classifier ranks all of them as the teacher would."""
    teacher = scripted(responses={"because": "Clear. Value: 5", "Judge": "Nothing. Value: 1"})
    made = list(distilled.value(texts(200), teacher, sample=0.2, at_least=10))
    assert len(made) == 200
    rated = [one for one in made if one.columns["rated"] is not None]  # type: ignore[union-attr]
    assert len(rated) == 40
    worth = {one.response: one.columns["value"] for one in made}  # type: ignore[union-attr]
    assert all((value > 0.5) == ("because" in text) for text, value in worth.items())
    assert {one.columns["value_auc"] for one in made} == {1.0}  # type: ignore[union-attr]
    assert all(len(one.origin.keys) == 1 for one in rated)


def test_ratings_without_a_difference_teach_nothing(scripted: Scripted) -> None:
    """R11: one class, or a number out of range, is no lesson."""
    assert set(ends(distilled.value(texts(6), scripted(reply="Value: 5"), at_least=6))) == {"one_class"}
    wild = scripted(name="wild", responses={"because": "Value: 9", "number 0": "Value: 5", "Judge": "Value: 1"})
    assert ends(distilled.value(texts(6), wild, at_least=6)).count("verdict_out_of_range") == 3
    with pytest.raises(RecipeError, match="sample"):
        list(distilled.value(texts(2), wild, sample=0))


def reviews() -> list[Seed]:
    plain = [
        Seed(f"p{n}", user(f"The cup number {n} is a cup of tea"), "kind" if n % 2 else "unkind") for n in range(8)
    ]
    ironic = [Seed(f"i{n}", user(f"Oh how lovely what luck {n} again"), "zebra") for n in range(8)]
    return plain + ironic


def test_more_is_written_for_the_group_that_is_weak(scripted: Scripted) -> None:
    """R51 (TDG): the group whose labels the student finds least likely, shown with its own cases; labels must be known."""
    reply = "[Text] Oh what a day.\n[Label] zebra\n[Text] A cup.\n[Label] lion\n[Text] oh, What a day!\n[Label] zebra"
    results = list(
        weak_groups.expanded(reviews(), scripted(reply=reply), model="pocket", groups=2, worst=1, shown=3, count=5)
    )
    made = [each for each in results if isinstance(each, Example)]
    assert [(one.response, one.prompt[0].content) for one in made] == [("zebra", "Oh what a day.")]
    losses = Meter("pocket").losses([(one.prompt, one.reference or "") for one in reviews()])
    means = [sum(losses[:8]) / 8, sum(losses[8:]) / 8]  # type: ignore[arg-type]
    weak = "cup" if means[0] > means[1] else "lovely"
    assert made[0].columns["group_gain"] > 0 and made[0].columns["group_loss"] == pytest.approx(max(means), rel=1e-4)
    assert all(weak in text for text in made[0].asked[0].content.split("[Text]")[1:-1])  # the cases that were shown
    lost = [each.reason for each in results if isinstance(each, Lost)]
    assert sorted(set(lost)) == ["not_weak", "repeated", "unknown_label"] and lost.count("not_weak") == 8


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [({"gain": 99.0}, "cannot_learn"), ({"harm": -99.0}, "does_harm"), ({"shown": 8}, "small_group")],
)
def test_a_group_that_cannot_learn_is_left_alone(scripted: Scripted, knobs: dict[str, Any], reason: str) -> None:
    """R51 (TDG): generalisation and interference in context decide."""
    results = list(
        weak_groups.expanded(reviews(), scripted(reply="x"), model="pocket", groups=2, **{"shown": 3, **knobs})
    )
    assert {each.reason for each in results if isinstance(each, Lost)} == {reason}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "known.jsonl"
    rows = [("What a warm place.", "kind"), ("Never again.", "unkind"), ("A fine cup.", "kind")]
    path.write_text("".join(json.dumps({"prompt": text, "reference": label}) + "\n" for text, label in rows))
    return path


def test_known_labels_are_explained_first(scripted: Scripted, labelled: Path) -> None:
    """R53 (AnnoLLM): one explanation for each class, then texts with reasons; the student learns the class alone."""
    script = {
        "Its class is known: kind": "Because warm is a compliment.",
        "Its class is known: unkind": "Because nobody returns.",
        "Now do the same.*soup": "Why: cold is no praise.\nClass: Unkind",
        "Now do the same": "Why: who knows?",
    }
    seeds = [Seed("a", user("The soup was cold.")), Seed("b", user("Grey.")), Seed("c", user("Never again."))]
    results = list(annotating.explained(seeds, scripted(responses=script), labels=LABELS, path=labelled, each=1))
    assert ends(results) == ["is_demonstration", "unkind", "no_class"]
    made = results[1]
    assert isinstance(made, Example)
    assert made.prompt == seeds[0].prompt and made.columns["why"] == "cold is no praise."
    told = made.asked[0].content
    assert "Why: Because warm is a compliment.\nClass: kind" in told and "A fine cup" not in told
    assert len(made.origin.keys) == 3
    with pytest.raises(RecipeError, match="no row of class odd"):
        list(annotating.explained(seeds, scripted(), labels={**LABELS, "odd": "?"}, path=labelled))


ANSWER = Example("e", user("When did the mill open?"), "It opened in 1920 by the river. It is red.", "In 1820.")


def test_errors_have_a_place_a_kind_and_a_weight(scripted: Scripted) -> None:
    """R59 (InstructScore, TIGERScore): -5 and -1; what is quoted must be in the answer."""
    report = 'Some words.\n- Error: "1920" | fact | major | It was 1820.\nError: "It is red." | instruction | Minor | Not asked.'
    (made,) = faults.found([ANSWER], scripted(reply=report))
    assert isinstance(made, Example)
    assert (made.columns["score"], [error["span"] for error in made.columns["errors"]]) == (
        -6.0,
        ["1920", "It is red."],
    )
    assert made.response == ANSWER.response and "1820" not in made.asked[0].content if made.asked else True
    (lesson,) = faults.lessons([made])
    assert isinstance(lesson, Example)
    assert lesson.response == (
        'Error: "1920" | fact | major | It was 1820.\nError: "It is red." | instruction | minor | Not asked.'
    )
    assert "It opened in 1920" in lesson.prompt[0].content


@pytest.mark.parametrize(
    ("report", "told"),
    [
        ("No error.", 0.0),
        ('Error: "1930" | fact | major | No.', "span_missing"),
        ('Error: "1920" | colour | major | No.', "unknown_kind"),
        ('Error: "1920" | fact | grave | No.', "no_report"),
        ('Error: "1920" | fact | major | No.\nError: the rest is wrong as well', "no_report"),
        ("It is fine, I think.", "no_report"),
    ],
)
def test_a_report_is_believed_only_whole(scripted: Scripted, report: str, told: Any) -> None:
    """R59."""
    (result,) = faults.found([ANSWER], scripted(reply=report))
    assert (result.reason if isinstance(result, Lost) else result.columns["score"]) == told


def test_planted_errors_were_not_there_before(scripted: Scripted) -> None:
    """R59 (InstructScore's synthetic reports): the old answer is the reference, its own words are no planted error."""
    spoil = "[Answer] It opened in 1720 by the river. It is red.\n[Errors]\n"
    (made,) = faults.planted([ANSWER], scripted(reply=spoil + 'Error: "1720" | fact | major | It was 1920.'))
    assert isinstance(made, Example)
    assert (made.reference, made.response) == (ANSWER.response, "It opened in 1720 by the river. It is red.")
    there = scripted(name="there", reply=spoil + 'Error: "It is red." | fact | minor | It is blue.')
    same = scripted(name="same", reply=f'[Answer] {ANSWER.response}\n[Errors]\nError: "1920" | fact | major | No.')
    bare = scripted(name="bare", reply="It opened in 1720.")
    assert [ends(faults.planted([ANSWER], teacher)) for teacher in (there, same, bare)] == [
        ["span_was_there"], ["unchanged"], ["sections"],
    ]  # fmt: skip


HISTORY = Seed("h", user("Liked: Salt and Rope; The Old Pier."), "A Year at Sea", {
    "titles": ["Salt and Rope", "The Old Pier"], "options": ["A Year at Sea", "Engines", "The Laws of Chess"],
})  # fmt: skip


def test_a_narrative_request_names_nothing(scripted: Scripted) -> None:
    """R58 (NDR): the request is the prompt, what was liked next is learnt."""
    wish = "I want the sea, tar and patience; no murders, and nobody should be in a hurry."
    replies = [
        wish,
        "Something like salt and rope, I beg you, with more rain in it.",
        "A year at sea would be nice for me, please.",
        "Ships!",
    ]
    results = list(recommending.narrative([HISTORY, Seed("n", user("x"))], scripted(n=4, reply=replies)))
    assert ends(results) == ["no_reference", "A Year at Sea", "names_title", "names_title", "too_short"]
    assert results[1].prompt == user(wish)  # type: ignore[union-attr]


def test_a_history_is_asked_in_many_forms() -> None:
    """R58 (InstructRec): what was liked is right in each; either answer, and either place, comes up evenly."""
    seeds = [Seed(f"h{n}", HISTORY.prompt, HISTORY.reference, HISTORY.columns) for n in range(60)]
    made = [one for one in recommending.forms(seeds) if isinstance(one, Example)]
    by = {form: [one for one in made if one.columns["form"] == form] for form in ("pointwise", "pairwise", "matching")}
    assert all(len(rows) == 60 for rows in by.values())
    assert 15 < sum(one.response == "Yes." for one in by["pointwise"]) < 45
    assert all((one.response == "Yes.") == ("A Year at Sea" in one.prompt[0].content) for one in by["pointwise"])
    assert {one.response for one in by["pairwise"]} == {"A Year at Sea"}
    assert 15 < sum('"A Year at Sea" or' in one.prompt[0].content for one in by["pairwise"]) < 45
    told = Example("e", HISTORY.prompt, "They love the sea.", HISTORY.reference, columns=HISTORY.columns)
    (explicit, *_) = recommending.forms([told], which=["matching"])
    assert "They love the sea." in explicit.prompt[0].content  # type: ignore[union-attr]
    assert ends(recommending.forms([Seed("x", user("x"), "A", {"options": ["A"]})])) == ["no_other"]
    with pytest.raises(RecipeError, match="no form 'triple'"):
        list(recommending.forms([HISTORY], which=["triple"]))
