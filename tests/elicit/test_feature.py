import os
from pathlib import Path

import numpy as np
import pytest

from stillhouse.elicit.feature import top_logprobs
from stillhouse.errors import RecipeError
from stillhouse.records import Prompt, Seed, user
from stillhouse.teachers.base import TokenBeliefs

DATA = os.environ.get("STILLHOUSE_TEST_DATA")


class Uniform:
    """Believes every one of k tokens equally, and remembers which prompts it saw."""

    name = "uniform"

    def __init__(self) -> None:
        self.seen: list[Prompt] = []

    def tokenizer_fingerprint(self) -> str:
        return "fp"

    def top_logprobs(self, pairs, *, k):  # type: ignore[no-untyped-def]
        for prompt, response in pairs:
            self.seen.append(prompt)
            ids = np.frombuffer(response.encode(), dtype=np.uint8).astype(np.int64)
            yield TokenBeliefs(ids, np.tile(np.arange(k), (len(ids), 1)), np.full((len(ids), k), -np.log(k)))


def test_beliefs_go_to_their_own_example_in_order() -> None:
    examples = [
        Seed(f"s{i}", user(f"q{i}"), "r").answered("ab" * (i + 1), asked=user("asked"), teacher="t") for i in range(5)
    ]
    teacher = Uniform()
    made = list(top_logprobs(iter(examples), teacher, k=4))
    assert [m.response for m in made] == [e.response for e in examples]
    assert [m.origin.parents for m in made] == [(e.id,) for e in examples]
    assert [len(m.token_ids_T) for m in made] == [2, 4, 6, 8, 10]
    assert np.allclose(np.exp(made[0].top_logprobs_TK).sum(-1), 1)
    assert (made[0].tokenizer, made[0].reference) == ("fp", "r")
    assert teacher.seen == [e.prompt for e in examples]


def test_under_asked_the_teacher_sees_what_the_student_never_will() -> None:
    """R43: beliefs of a teacher with the context, on the student's prompt without it."""
    example = Seed("s", user("q")).answered("a", asked=user("rules\n\nq"), teacher="t")
    teacher = Uniform()
    (made,) = top_logprobs([example], teacher, k=2, under="asked")
    assert teacher.seen == [user("rules\n\nq")]
    assert made.prompt == user("q")


def test_a_black_box_is_refused() -> None:
    class BlackBox:
        name = "box"

    with pytest.raises(RecipeError, match="'box' cannot tell log-probabilities"):
        list(top_logprobs([], BlackBox()))
    with pytest.raises(RecipeError, match="k is 0"):
        list(top_logprobs([], Uniform(), k=0))


@pytest.mark.skipif(DATA is None, reason="STILLHOUSE_TEST_DATA is not set")
def test_a_real_white_box_teacher() -> None:
    """R25: log-probabilities equal those of the model itself."""
    transformers = pytest.importorskip("stillhouse.teachers.transformers")
    teacher = transformers.Teacher(model=str(Path(DATA or "") / "stories260K" / "hf"))
    example = Seed("s", user("Once upon a time")).answered(
        ", there was a little girl named Lily.", asked=(), teacher="t"
    )
    (made,) = top_logprobs([example], teacher, k=512)
    assert np.allclose(np.exp(made.top_logprobs_TK.astype(np.float64)).sum(-1), 1, atol=1e-2)
    assert (np.diff(made.top_logprobs_TK, axis=-1) <= 1e-3).all()
