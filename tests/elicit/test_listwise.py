"""A hundred passages ordered twenty at a time (R56)."""

import re
from typing import Any

import pytest

from stillhouse.elicit import listwise
from stillhouse.errors import RecipeError
from stillhouse.records import Example, Lost, Ranking, Seed, user
from stillhouse.teachers.base import Answer, Outcome


class Oracle:
    """Orders what it is shown by the number in each passage, the highest first."""

    def __init__(self, teacher: Any) -> None:
        self.name, self.sampling, self.sizes = teacher.name, teacher.sampling, []

    def ask(self, requests: Any) -> Any:
        for request in requests:
            shown = re.findall(r"^\[(\d+)\] passage (\d+)", request.messages[-1].content, re.M)
            self.sizes.append(len(shown))
            best = sorted(shown, key=lambda each: -int(each[1]))
            yield Outcome(request, Answer(" > ".join(f"[{place}]" for place, _ in best)), f"k{len(self.sizes)}")


def test_r56_the_best_of_the_back_come_to_the_front(scripted: Any) -> None:
    """R56 (RankGPT): windows of 20, 10 apart, from the back: nine questions, and the ten best of all stand in front."""
    texts = [f"passage {(37 * n) % 100}" for n in range(100)]
    teacher = Oracle(scripted())
    (made,) = listwise.windows([Seed("s", user("which?"), None, {"passages": texts})], teacher)  # type: ignore[arg-type]
    assert isinstance(made, Ranking)
    assert teacher.sizes == [20] * 9
    assert [text.split()[1] for text in made.responses[:10]] == [str(n) for n in range(99, 89, -1)]
    assert sorted(made.responses) == sorted(texts)
    assert made.scores[:3] == (1.0, 0.5, 1 / 3)
    assert len(made.origin.keys) == 9


def test_r56_orders_are_mended_or_the_row_is_lost(scripted: Any) -> None:
    def rows() -> list[Seed]:
        return [
            Seed("s", user("which?"), None, {"hits": [{"text": f"p{n}"} for n in range(3)]}),
            Seed("t", user("?"), None, {"hits": []}),
        ]

    made, few = listwise.windows(rows(), scripted(reply="[3] > [3] > [9]"), passages="hits", field="text")
    assert isinstance(made, Ranking)
    assert made.responses == ("p2", "p0", "p1")
    assert isinstance(few, Lost)
    assert few.reason == "too_few"
    lost, _ = listwise.windows(rows(), scripted(name="b", reply="None of them."), passages="hits", field="text")
    assert isinstance(lost, Lost)
    assert (lost.reason, lost.state) == ("no_permutation", "quarantined")
    with pytest.raises(RecipeError, match="no list in the column 'passages'"):
        list(listwise.windows(rows(), scripted()))
    with pytest.raises(RecipeError, match="step <= window"):
        list(listwise.windows(rows(), scripted(), window=5, step=6))


def test_r56_a_listwise_student_reads_a_drawn_order() -> None:
    """R56 (RankVicuna): the text names the right order of passages that were shuffled."""
    ranked = [Ranking(f"r{n}", user("which?"), tuple(f"p{i}" for i in range(6))) for n in range(4)]
    shown = set()
    for one in listwise.as_text(ranked):
        assert isinstance(one, Example)
        found = dict(re.findall(r"^\[(\d)\] (p\d)", one.prompt[0].content, re.M))
        assert [found[place] for place in re.findall(r"\[(\d)\]", one.response)] == [f"p{i}" for i in range(6)]
        shown.add(tuple(found.values()))
    assert len(shown) > 1
