"""Preferences from agreement, a society, facts at hand and known verdicts; each on a scripted teacher, each naming its row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.elicit import agreement, feedback, judging, knowledge, society
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Ranking, Seed, user
from stillhouse.selection.influence import Meter
from stillhouse.teachers.pocket import Teacher as Pocket

Scripted = Callable[..., Any]


def ends(results: Any) -> list[str]:
    return [each.reason if isinstance(each, Lost) else each.responses[0] for each in results]


def answers(prompt: int, *likelihoods: float) -> list[Example]:
    return [
        Example(f"p{prompt}a{i}", user(f"question {prompt}"), f"answer {prompt}{i}", columns={"likelihood": value})
        for i, value in enumerate(likelihoods)
    ]


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ([1, 2, 3], [1, 2, 3], [1, 2, 3]), ([2, 1, 3], [1, 2, 3], [1, 3]), ([3, 2, 1], [1, 2, 3], [1]),
        ([4, 1, 3, 2], [1, 4, 2, 3], [1, 3]), ([], [], []),
    ],
)  # fmt: skip
def test_the_longest_common_order(one: list[int], other: list[int], shared: list[int]) -> None:
    """R37: by hand; of equals any will do, it must be in both orders and as long."""
    found = agreement.common(one, other)
    assert len(found) == len(shared)
    assert all([each for each in order if each in found] == found for order in (one, other))


def test_what_both_agree_on_is_shown_with_the_next_list(scripted: Scripted) -> None:
    """R37 (CycleAlign): the teacher's order is learnt; where the student's own agrees it becomes a demonstration."""
    rows = [*answers(0, -1, -2, -3), *answers(1, -3, -1, -2), *answers(2, -1, -2), *answers(3, -1)]
    results = list(agreement.ranked(rows, scripted(reply="[1] > [2] > [3]"), at_once=1, demonstrations=1))
    assert ends(results)[2:] == ["no_permutation", "single_answer"]
    first, second, *_ = results
    assert isinstance(first, Ranking) and isinstance(second, Ranking)
    shown = [text for text in first.responses]
    own = sorted(shown, key=lambda text: -next(one.columns["likelihood"] for one in rows if one.response == text))
    numbers = {text: i for i, text in enumerate(shown)}
    assert first.columns["agreed"] == len(agreement.common([0, 1, 2], [numbers[text] for text in own]))
    assert first.scores == (2.0, 1.0, 0.0)


def test_demonstrations_reach_the_prompt(calls: Any) -> None:
    """R37: none before the first list, the agreed answers of it before the second; two runs ask the same."""
    from stillhouse.teachers.base import Sampling
    from stillhouse.teachers.scripted import Teacher

    asked: list[str] = []

    class Heard(Teacher):
        def ask(self, requests: Any) -> Any:
            def told() -> Any:
                for request in requests:
                    asked.append(request.messages[0].content)
                    yield request

            return super().ask(told())

    rows = [*answers(0, -1, -2), *answers(1, -1, -2)]
    teacher = calls.teacher("heard", Heard(responses={"answer 00": "[1] > [2]"}, reply="[1] > [2]"), Sampling())
    first = answers(0, -1, -2)
    (ranked,) = agreement.ranked(first, teacher, at_once=1)
    assert isinstance(ranked, Ranking)
    order = ranked.responses
    for one in rows[:2]:
        one.columns["likelihood"] = -float(order.index(one.response))
    asked.clear()
    list(agreement.ranked(rows, teacher, at_once=1))
    (second,) = [text for text in asked if "question 1" in text]
    assert (
        second.startswith("Here is how it was done before.") and "answer 00" in second and "Order: [1] > [2]" in second
    )


def test_a_student_ranks_by_its_own_belief() -> None:
    """R37: the mean log-probability of the tokens, as the selectors' meter finds it."""
    rows = [Example(f"e{i}", user("How many?"), text) for i, text in enumerate(["The answer is 4.", "xq zv qx"])]
    made = list(agreement.likely(rows, Pocket()))
    losses = Meter("pocket", loaded=(Pocket().module(), Pocket().tokenizer())).losses(
        [(r.prompt, r.response) for r in rows]
    )
    assert [-one.columns["likelihood"] for one in made] == pytest.approx(losses)  # type: ignore[union-attr]
    assert made[0].columns["likelihood"] > made[1].columns["likelihood"]  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="no local model"):
        list(agreement.likely(rows, object()))  # type: ignore[arg-type]


TOWN = {
    "Judge an answer.*better now": "alignment: 7\nengagement: 6",
    "Judge an answer": "alignment: 2\nengagement: 4",
    "Somebody near you": "[Advice] Say it kindly.\nRating: 3",
    "You were asked this and answered": "It is better now.",
    "Is it right": "No idea.",
}


def test_neighbours_rate_and_advise_and_an_observer_ranks(scripted: Scripted) -> None:
    """R41 (SANDBOX): eight neighbours on a grid without edges; what was revised stands above what was said first."""
    (made,) = society.simulated([Seed("s", user("Is it right to lie?"))], scripted(responses=TOWN), interactions=1)
    assert isinstance(made, Ranking)
    assert (made.responses, made.scores) == (("It is better now.", "No idea."), (6.5, 3.0))
    assert made.columns["neighbours"] == [3.0] and made.columns["person"] in society.PEOPLE
    assert len(made.origin.keys) == 1 + 8 + 1 + 2
    assert made.prompt == user("Is it right to lie?")


def test_an_agent_remembers_its_best_answer(scripted: Scripted) -> None:
    """R41: on a grid of one, the second request is answered with the first one's best answer in mind."""
    town = society._Town(society.PEOPLE, 2, 2, 1, 1, 0)
    assert town.around(0) == [1, 2, 3]
    near, far = Seed("a", user("Is it right to lie?")), Seed("b", user("What is for dinner?"))
    town.remember(3, near, "Never.")
    town.remember(3, far, "Soup.")
    told = town.opening(society._Talk(Seed("c", user("May I lie to a thief?")), 3))[0].content
    assert "Never." in told and "Soup." not in told
    assert "remember" not in town.opening(society._Talk(near, 2))[0].content


def test_a_town_that_says_nothing_new(scripted: Scripted) -> None:
    """R41: no advice that can be read leaves one answer; equal ratings leave no order."""
    one = [Seed("s", user("Is it right to lie?"))]
    assert ends(society.simulated(one, scripted(reply="Well."))) == ["unchanged"]
    level = {
        **TOWN,
        "Judge an answer": "alignment: 4\nengagement: 4",
        "Judge an answer.*better now": "alignment: 4\nengagement: 4",
    }
    assert ends(society.simulated(one, scripted(name="level", responses=level))) == ["tie"]
    with pytest.raises(RecipeError, match="1 or more"):
        list(society.simulated(one, scripted(), width=0))


def test_answers_rank_by_the_facts_at_hand(scripted: Scripted, tmp_path: Path) -> None:
    """R45 (KnowPAT): right triples, none, wrong ones; none of them is in the student's prompt."""
    path = tmp_path / "triples.jsonl"
    path.write_text('{"s": "scurvy", "o": "lemons"}\n{"s": "rust", "o": "paint"}\n')
    script = {"lemons": "Eat lemons.", "paint": "Paint them.", "scurvy": "Rest."}
    seeds = [Seed("a", user("What helps against scurvy?")), Seed("b", user("Why?"))]
    results = list(
        knowledge.ranked(seeds, scripted(responses=script), path=path, template="{{ s }} is cured by {{ o }}")
    )
    assert ends(results) == ["no_facts", "Eat lemons."]
    made = results[1]
    assert isinstance(made, Ranking)
    assert (made.responses, made.scores) == (("Eat lemons.", "Rest.", "Paint them."), (3.0, 2.0, 1.0))
    assert made.prompt == seeds[0].prompt and "cured by" in made.asked[0].content
    assert ends(
        knowledge.ranked(seeds[:1], scripted(name="dumb", reply="Hm."), path=path, template="{{ s }} {{ o }}")
    ) == ["equal"]


def test_verdicts_that_agree_with_people_are_lessons(scripted: Scripted) -> None:
    """R39 (EFT): the prompt is the one with which it will judge; reasons and ratings are learnt."""
    columns = {"response": "Salt.", "score": 4}
    seed = Seed("s", user("What is in the sea?"), None, columns)
    replies = ["Short but right.\nworth: 4", "Poor.\nworth: 1", "worth: 9"]
    results = list(judging.rated([seed], scripted(n=3, reply=replies), aspects={"worth": "points"}, low=0, high=5))
    made, *lost = results
    assert isinstance(made, Example)
    assert made.response == "Short but right.\nworth: 4" and "Salt." in made.prompt[0].content
    assert [each.reason for each in lost if isinstance(each, Lost)] == ["disagrees", "verdict_out_of_range"]
    (rated,) = feedback.rate(
        [Example("e", seed.prompt, "Salt.")], scripted(name="again", reply="worth: 4"), aspects={"worth": "points"}, low=0,
        high=5, untrusted="unchecked",
    )  # fmt: skip
    assert isinstance(rated, Example)
    with pytest.raises(RecipeError, match="needs the columns"):
        list(judging.rated([Seed("x", user("q"))], scripted()))


def test_a_rule_is_believed_where_a_judge_agrees() -> None:
    """R35 (ALMoST's validation): an answer scored no lower than a better generator's takes no part."""
    from stillhouse.records import Origin

    def of(name: str, score: float | None) -> Example:
        return Example(name, user("q"), f"by {name}", columns={"score": score}, origin=Origin(teacher=name))

    order = ["large", "middle", "small"]
    (made,) = feedback.by_teacher([of("small", 1), of("large", 5), of("middle", 6)], order=order, agrees="score")
    assert isinstance(made, Ranking) and made.responses == ("by large", "by small")
    (lost,) = feedback.by_teacher([of("small", 5), of("large", 5), of("middle", None)], order=order, agrees="score")
    assert isinstance(lost, Lost) and lost.reason == "disagrees"


def test_a_principle_is_drawn_for_each_pair() -> None:
    """R32: soft preferences under one of several principles, never surer than the clamp allows."""
    rows = [
        Example(f"p{i}{j}", user(f"question {i}"), text)
        for i in range(6)
        for j, text in enumerate(["The answer is 4.", "zq"])
    ]
    principles = ["more helpful", "less harmful to anybody at all"]
    drawn = list(feedback.option_logprobs(rows, Pocket(), criterion=principles, k=2000))
    alone = [list(feedback.option_logprobs(rows, Pocket(), criterion=each, k=2000)) for each in principles]
    scores = [[one.scores for one in rankings if isinstance(one, Ranking)] for rankings in (drawn, *alone)]
    assert all(len(each) == 6 for each in scores)
    picked = {[first, second].index(one) for one, first, second in zip(*scores, strict=True)}
    assert picked == {0, 1}
    clamped = list(feedback.option_logprobs(rows, Pocket(), criterion=principles, clamp=0.49, k=2000))
    assert all(0.49 <= score <= 0.51 for one in clamped for score in one.scores)  # type: ignore[union-attr]
