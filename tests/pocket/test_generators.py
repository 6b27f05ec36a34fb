"""The generators: the same seed gives the same items, the split holds, and each checker knows right from wrong."""

import dataclasses
from itertools import islice, pairwise

import pytest

from tools.pocket import demo
from tools.pocket.item import Draw, Item, seen, unseen
from tools.pocket.measure import wilson
from tools.pocket.mixture import SKILLS, items
from tools.pocket.skills import classify, constraints, reading, word_problems
from tools.pocket.skills.stories import STORIES


def made(name: str, count: int, *, held_out: bool = False, seed: int = 3) -> list[Item]:
    draw = Draw(seed, held_out=held_out)
    return [SKILLS[name].make(draw) for _ in range(count)]


def test_a_seed_says_everything():
    assert list(islice(items(Draw(5)), 50)) == list(islice(items(Draw(5)), 50))
    assert list(islice(items(Draw(5)), 50)) != list(islice(items(Draw(6)), 50))


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", SKILLS)
def test_checkers_accept_gold(name: str, held_out: bool):
    for item in made(name, 200, held_out=held_out):
        assert SKILLS[name].right(item, item.answer), item


@pytest.mark.parametrize("name", SKILLS)
def test_checkers_reject_what_is_wrong(name: str):
    gold = made(name, 60)
    for item in gold:
        assert not SKILLS[name].right(item, "")
        assert not SKILLS[name].right(item, "I do not know")
    # somebody else's answer is nearly always wrong; labels and verdicts do repeat
    limit = {"compare": 0.8, "check_answer": 0.8, "new_problem": 1.0}.get(name, 0.3)
    assert sum(SKILLS[name].right(a, b.answer) for a, b in pairwise(gold)) <= limit * len(gold)


def test_a_wrong_number_is_wrong():
    item = made("word_problems", 1)[0]
    wrong = dataclasses.replace(item, facts=item.facts | {"final": item.facts["final"] + 1})
    assert not word_problems.right(wrong, item.answer)
    assert not word_problems.right(item, item.answer + " And so on.")


@pytest.mark.parametrize(
    ("facts", "kind", "response"),
    [
        ({"words": ["cat", "lamp"]}, "use", "The cat is near the door."),
        ({"words": ["cat", "lamp"]}, "order", "The lamp is near the cat."),
        ({"category": "fruits", "count": 2, "numbered": False}, "list", "plum, plum"),
        ({"category": "fruits", "count": 2, "numbered": False}, "list", "plum, hammer"),
        ({"category": "fruits", "count": 2, "numbered": True}, "list", "1. plum\n3. pear"),
        ({"first": "Today", "words": ["cat"]}, "start", "The cat is here today."),
        ({"last": "cat"}, "end", "The cat is here."),
        ({"words": ["cat"], "avoid": "big"}, "avoid", "The cat is very big."),
    ],
)
def test_a_broken_constraint_is_wrong(facts: dict, kind: str, response: str):
    assert not constraints.right(Item("constraints", kind, (), facts), response)


def test_held_out_wordings_are_never_in_training():
    tables = [word_problems.REASONING, word_problems.ANSWER_ONLY, reading.FRAMES, classify.FRAMES, constraints.USE]
    tables += [part for story in STORIES for part in (story.openings, story.gains, story.losses, story.questions)]
    for table in tables:
        assert not set(seen(table)) & set(unseen(table))


@pytest.mark.parametrize("name", SKILLS)
def test_held_out_prompts_are_never_in_training(name: str):
    training = {str(item.prompt) for item in made(name, 3000)}
    measured = {str(item.prompt) for item in made(name, 300, held_out=True, seed=4)}
    assert not training & measured


def test_demo_sets_are_disjoint_and_small():
    seeds = [item.facts for item in demo.problems(11, demo.SEEDS, held_out=False)]
    held_out = [item.facts for item in demo.problems(12, demo.HELD_OUT, held_out=True)]
    assert not {facts["question"] for facts in seeds} & {facts["question"] for facts in held_out}
    assert all(0 <= facts["final"] <= 9 for facts in seeds + held_out)


def test_wilson_by_hand():
    low, high = wilson(90, 100)
    assert (round(low, 3), round(high, 3)) == (0.826, 0.945)
