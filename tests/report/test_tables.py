"""Costs, times and tokens by hand."""

from collections.abc import Callable

import pytest

from stillhouse.reporting.reading import RunFacts
from stillhouse.reporting.tables import dollars, duration, identity, ledger, same_tokens, tokens_seen

from . import folders


def test_a_local_teacher_has_no_price_and_a_paid_one_says_what_it_cost(facts: Callable[..., RunFacts]) -> None:
    made = folders.manifest()
    local = {"name": "near", "backend": "pocket", "model": "teacher", "endpoint": "", "revision": "abc"}
    made["steps"][2]["teachers"] = [folders.TEACHER, local]
    made["calls"]["near"] = folders.calls(asked=5, answered=5, output_tokens=9)
    read = facts(None, steps=made["steps"], calls=made["calls"])
    prices = {each.name: each.price for each in ledger(read)}
    assert prices == {"big": "$1.31 (answers from the store once cost $1.25)", "near": "no price: local"}
    big = ledger(read)[0]
    assert big.asked == big.answered + sum(big.failed.values()) + big.not_attempted
    assert big.stored_tokens == 170_000


def test_equal_tokens_are_claimed_only_within_one_per_cent(facts: Callable[..., RunFacts]) -> None:
    def said(other: int) -> str:
        students = [
            folders.student("text", 0, 40_000),
            folders.student("text", 1, 40_000),
            folders.student("beliefs", 0, other),
        ]
        return same_tokens(tokens_seen(facts(None, students=students)))

    assert said(40_000) == said(39_700) == "All arms read and learned from equally many tokens (within 1 %)."
    assert (
        said(20_000) == "Arms differ in input and target tokens by up to 50 %: they are not compared at equal tokens."
    )
    assert same_tokens([]) == ""


def test_tokens_are_per_seed_over_all_phases(facts: Callable[..., RunFacts]) -> None:
    students = [folders.student("text", seed, 1000 * (seed + 1)) for seed in (0, 1)]
    students[0]["phases"] *= 2
    students[1]["phases"] *= 2
    (seen,) = tokens_seen(facts(None, students=students))
    assert (seen.seeds, seen.steps, seen.target_tokens, seen.input_tokens) == (2, 120, 3000, 9000)
    assert seen.final_loss == pytest.approx(0.55)
    assert seen.left_out == {"too_long": 6}


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "$0.00"), (1234.5, "$1,234.50"), (0.1, "$0.10"), (0.00049, "$0.00049"), (3.2e-6, "$3.2e-06")],
)
def test_small_sums_keep_their_digits(amount: float, text: str) -> None:
    assert dollars(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.004, "4 ms"), (1.5, "1.5 s"), (89, "89.0 s"), (600, "10 min"), (5400, "1 h 30 min"), (7260, "2 h 01 min")],
)
def test_times_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_local_model_is_named_without_its_folder() -> None:
    who = {"backend": "transformers", "model": "/home/someone/models/tiny", "revision": "0123456789abcdef"}
    assert identity(who) == "transformers tiny @0123456789ab"
    assert identity({"backend": "pocket", "model": "pocket"}) == "pocket"
    assert identity({}) == "unknown"
