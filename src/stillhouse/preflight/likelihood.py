"""Is the teacher better than the student on this data, and how far is the student from it?

Legend: N positions, V vocabulary, K kept tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from stillhouse.preflight.findings import Finding
from stillhouse.render import Rendered, addressable
from stillhouse.teachers.forced import forced

_CLEARLY = 0.01  # nats a token: less is no difference, however sure it is
_WEAK = 1.5  # nats a token from its teacher: the mode-seeking divergences lose from there
_SEEKS_MODES = ("reverse_kl", "jensen_shannon", "skew_", "total_variation")
_KEPT = (8, 16, 32, 64, 128)


def compared(
    teacher: Any,
    student: Any,
    tokenizer: Any,
    rows: Sequence[Rendered],
    *,
    read_by_teacher: Sequence[Rendered],
    answered_by: str,
    objectives: Sequence[str],
) -> Iterator[Finding]:
    """One tokenizer for both; `rows` as the student reads them. The difference is over rows, with an interval of twice its
    standard error.
    """
    width = addressable(tokenizer)
    theirs, ours = (
        _logprobs(model, tokenizer, read, width) for model, read in ((teacher, read_by_teacher), (student, rows))
    )
    nll = [np.array([float(-hit.sum()) for hit, _ in each]) for each in (theirs, ours)]
    tokens = np.array([len(row.response) for row in rows])
    means = [float(each.sum() / tokens.sum()) for each in nll]
    gap_R = (nll[1] - nll[0]) / tokens
    gap, error = float(gap_R.mean()), float(gap_R.std(ddof=1) / len(gap_R) ** 0.5) if len(gap_R) > 1 else float("inf")
    clear = max(2 * error, _CLEARLY)
    numbers = {
        "teacher_nll": round(means[0], 4),
        "student_nll": round(means[1], 4),
        "gap": round(means[1] - means[0], 4),
    }
    said = f"NLL per token: teacher {means[0]:.3f}, student {means[1]:.3f}"
    if answered_by != "data":
        yield Finding(
            "teacher on this data",
            "note",
            f"{said}, on the teacher's own answers, which says nothing of who is better",
            numbers,
        )
    elif gap > clear:
        yield Finding("teacher on this data", "ok", f"{said}: the teacher knows it better", numbers)
    else:
        verdict = "no better than" if gap > -clear else "worse than"
        yield Finding(
            "teacher on this data", "warning",
            f"{said}: the teacher is {verdict} the student, which then learns less from it than from the text itself; "
            "take a better teacher, or correct this one to the data first",
            numbers,
        )  # fmt: skip
    yield from _distance(theirs, ours, objectives)


def _distance(theirs: list[Any], ours: list[Any], objectives: Sequence[str]) -> Iterator[Finding]:
    import torch

    log_p_NV, log_q_NV = (torch.cat([logprobs for _, logprobs in each]) for each in (theirs, ours))
    kl = float((log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(-1).mean())
    seeking = sorted({name for name in objectives if any(part in name for part in _SEEKS_MODES)})
    if seeking and kl > _WEAK:
        yield Finding(
            "distance to the teacher", "warning",
            f"KL(teacher || student) is {kl:.2f} nats a token: {', '.join(seeking)} lost to plain text from so far away; "
            "begin with divergence.forward_kl or supervised.cross_entropy",
            {"kl": round(kl, 4)},
        )  # fmt: skip
    else:
        yield Finding(
            "distance to the teacher", "ok", f"KL(teacher || student) is {kl:.3f} nats a token", {"kl": round(kl, 4)}
        )
    sorted_NK = log_p_NV.exp().topk(min(_KEPT[-1], log_p_NV.shape[-1]), dim=-1).values.cumsum(-1)
    mass = {k: round(float(sorted_NK[:, k - 1].mean()), 4) for k in _KEPT if k <= sorted_NK.shape[1]}
    lowest = {k: round(float(sorted_NK[:, k - 1].quantile(0.05)), 4) for k in mass}
    told = ", ".join(f"{k}: {share:.3f} ({lowest[k]:.3f})" for k, share in mass.items())
    yield Finding(
        "top-k mass", "note", f"mean (5th percentile) by k: {told}", {"mean": mass, "fifth_percentile": lowest}
    )


def _logprobs(model: Any, tokenizer: Any, rows: Sequence[Rendered], width: int) -> list[tuple[Any, Any]]:
    """For each row the log-probabilities of its tokens, and of everything."""
    import torch

    def take(row: Rendered, logits_TV: Any, _: Any) -> tuple[Any, Any]:
        logprobs_TV = logits_TV[:, :width].float().log_softmax(-1).cpu()
        return logprobs_TV.gather(-1, torch.tensor(row.response)[:, None])[:, 0], logprobs_TV

    return list(forced(model, tokenizer, rows, take))


def graded(
    ask: dict[str, Callable[[], list[str]]], references: Sequence[str], grader: Callable[..., Any], name: str
) -> Iterator[Finding]:
    """Who answers the data's own questions better, by the recipe's own grader."""
    rates = {}
    for who, answers in ask.items():
        grades = [grade.value or 0.0 for grade in grader(answers(), list(references))]
        rates[who] = float(np.mean(grades))
    numbers: dict[str, Any] = {who: round(rate, 4) for who, rate in rates.items()} | {"questions": len(references)}
    said = f"right by {name}, of {len(references)}: teacher {rates['teacher']:.0%}, student {rates['student']:.0%}"
    spread = (sum(rate * (1 - rate) for rate in rates.values()) / max(len(references), 1)) ** 0.5
    if rates["teacher"] > rates["student"] + 2 * spread:
        yield Finding("teacher's answers", "ok", said, numbers)
    else:
        yield Finding("teacher's answers", "warning", f"{said}: the teacher is not clearly better", numbers)
