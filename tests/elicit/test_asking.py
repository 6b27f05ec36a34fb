from collections.abc import Iterable, Iterator

import pytest

from stillhouse.elicit.asking import as_seed, asked, complete, instructed
from stillhouse.errors import RecipeError
from stillhouse.records import Lost, Message, Ranking, Seed, user
from stillhouse.teachers.base import Answer, Outcome, Request, Sampling


def seeds(n: int) -> Iterator[Seed]:
    return (Seed(f"s{i}", user(f"question {i}"), str(i)) for i in range(n))


class Shuffling:
    """Answers windows of requests backwards, as a backend with bounded reordering may."""

    name = "shuffling"

    def __init__(self, n: int, window: int, forget: int | None = None) -> None:
        self.sampling, self.window, self.forget, self.drawn = Sampling(n=n), window, forget, 0

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        held: list[Request] = []
        for request in requests:
            self.drawn += 1
            held.append(request)
            if len(held) == self.window:
                yield from self._answered(held)
                held = []
        yield from self._answered(held)

    def _answered(self, held: list[Request]) -> Iterator[Outcome]:
        for request in reversed(held):
            if self.forget is None or request.expected != str(self.forget):
                text = f"{request.messages[-1].content} / {request.sample_index}"
                yield Outcome(request, Answer(text), key=f"{request.expected}-{request.sample_index}")


def test_order_is_that_of_the_seeds_whatever_the_backend_does() -> None:
    got = [
        (seed.id, slot, complete(seed, slot, out))
        for seed, slot, out in asked(seeds(25), Shuffling(3, 7), lambda s: s.prompt)
    ]
    assert got == [(f"s{i}", j, f"question {i} / {j}") for i in range(25) for j in range(3)]


def test_streams() -> None:
    """Asking for the first answer draws one window of requests, not the whole file."""
    teacher = Shuffling(2, 6)
    next(asked(seeds(10**9), teacher, lambda s: s.prompt))
    assert teacher.drawn == 6


def test_a_request_never_answered_is_a_slot_not_attempted() -> None:
    """Conservation: every slot ends in exactly one state."""
    ends = [
        complete(seed, slot, out) for seed, slot, out in asked(seeds(4), Shuffling(2, 3, forget=1), lambda s: s.prompt)
    ]
    gone = [end for end in ends if isinstance(end, Lost)]
    assert len(ends) == 8
    assert [(end.parent, end.reason, end.state, end.slot) for end in gone] == [
        ("s1", "unanswered", "not_attempted", 0),
        ("s1", "unanswered", "not_attempted", 1),
    ]


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "truncated"), ("refusal", "refused"), ("unknown", "truncated")]
)
def test_an_unfinished_answer_is_never_parsed(finish: str, reason: str) -> None:
    request = Request(user("q"))
    end = complete(Seed("s", user("q")), 2, Outcome(request, Answer("half of a", finish), "k"))  # type: ignore[arg-type]
    assert isinstance(end, Lost)
    assert (end.reason, end.state, end.slot, end.keys) == (reason, "quarantined", 2, ("k",))


def test_instruction_joins_the_last_user_turn_or_the_system_message() -> None:
    dialogue = (Message("system", "S"), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert instructed(dialogue, None) == dialogue
    assert instructed(dialogue, "I")[-1].content == "c\n\nI"
    assert instructed(dialogue, "I", "before")[-1].content == "I\n\nc"
    assert instructed(dialogue, "I", "system")[0] == Message("system", "S\n\nI")
    assert instructed(user("c"), "I", "system") == (Message("system", "I"), Message("user", "c"))
    assert [m.content for m in instructed(dialogue, "I")[:3]] == ["S", "a", "b"]


def test_an_example_asked_again_is_a_seed_with_it_as_parent_and_a_ranking_is_refused() -> None:
    example = Seed("s", user("q"), "ref").answered("old", asked=user("q"), teacher="t")
    again = as_seed(example).answered("new", asked=user("q"), teacher="u")
    assert again.origin.parents == (example.id,)
    assert again.reference == "ref"
    with pytest.raises(RecipeError, match="Ranking"):
        as_seed(Ranking("r", user("q"), ("a", "b")))  # type: ignore[arg-type]
