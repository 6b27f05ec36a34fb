"""What the rows of the task `judge` amount to: agreement with people, canaries, and judges that say one thing only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stillhouse.elicit.trust import LEAST
from stillhouse.evaluate.agreement import agreement, beats_constants
from stillhouse.evaluate.tasks.judge import CANARY

__all__: list[str] = []


def judged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per arm and seed: Cohen's kappa and accuracy with intervals, canaries, whether it beats every constant judge.

    `trusted`: it beats every constant judge, and at least `LEAST` of the canaries, where there were any, are right.
    """
    found = []
    for arm, seed in dict.fromkeys((row["arm"], row["seed"]) for row in rows):
        mine = [row for row in rows if (row["arm"], row["seed"]) == (arm, seed)]
        pairs = [row for row in mine if row["reference"] is not None and not row["reason"].startswith(CANARY)]
        if not pairs:
            continue
        verdicts, votes = [row["response"] or None for row in pairs], [row["reference"] for row in pairs]
        planted = [row["reason"] == f"{CANARY}right" for row in mine if row["reason"].startswith(CANARY)]
        beats = beats_constants(verdicts, votes)
        flips = sum(row["reason"] == "order_flip" for row in pairs) / len(pairs)
        found.append(
            {
                "arm": arm, "seed": seed, **asdict(agreement(verdicts, votes, resamples=500)), "order_flips": flips,
                "canaries": len(planted), "canaries_right": sum(planted), "beats_constants": beats,
                "trusted": beats and sum(planted) >= LEAST * len(planted),
            }
        )  # fmt: skip
    return found
