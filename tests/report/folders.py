"""Run folders made of small JSON, as `still run` leaves them: enough of everything that the report reads."""

import json
from pathlib import Path
from typing import Any

HOSTILE = (
    '</script><script>alert(1)</script><img src=x onerror="alert(2)"> & “quotes” {{ 7 * 7 }} \x00\x1b[31m \u202eleft'
)
TEACHER = {
    "name": "big", "backend": "openai", "wire": "openai", "model": "example-large", "endpoint": "https://models.example/v1",
    "revision": "2026-10-01", "settings": [],
}  # fmt: skip
RECIPE = """
name: arithmetic
use: {purpose: research, distributes: [weights]}
teachers:
  big: {backend: openai, model: example-large, base_url: "https://models.example/v1", terms: {record: example-terms}}
knowledge:
  gold: {seeds: {do: file, path: /data/seeds.jsonl}}
  answers:
    seeds: {do: hub, dataset: example/questions}
    elicit: [{do: labeling.reason, teacher: big}]
    select: [{do: quality.correct, grader: {do: math.equal}}]
  beliefs:
    seeds: {do: hub, dataset: example/questions}
    elicit: [{do: labeling.reason, teacher: big}, {do: feature.top_logprobs, teacher: big, k: 16}]
student: {model: example/small-base, terms: {record: apache-2.0}}
arms:
  control: {train: {objectives: [{do: supervised.cross_entropy, on: gold}]}}
  text: {train: {objectives: [{do: supervised.cross_entropy, on: answers}]}}
  beliefs: {train: {objectives: [{do: divergence.forward_kl, on: beliefs}]}}
repeats: 2
evaluate: [{do: qa, path: /data/held_out.jsonl, grader: {do: math.equal}, teacher: big}]
"""


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def step(
    branch: str, number: int, do: str, kind: str, out: int, lost: dict[str, int], teacher: bool = False
) -> dict[str, Any]:
    return {
        "branch": branch, "step": f"{number:02d}-{do}", "hash": "0" * 16, "kind": kind, "do": do, "knobs": {},
        "teachers": [TEACHER] if teacher else [], "samples": 1, "in": out, "out": out, "lost": lost, "seconds": 1.5,
    }  # fmt: skip


def student(arm: str, seed: int, tokens: int = 40_000) -> dict[str, Any]:
    phase = {
        "steps": 60, "input_tokens": 3 * tokens, "target_tokens": tokens, "seconds": 9.0, "left_out": {"too_long": 3},
        "final_loss": 0.5 + seed / 10,
    }  # fmt: skip
    return {
        "hash": "0" * 16,
        "arm": arm,
        "seed": seed,
        "phases": [phase],
        "seconds": 10.0,
        "path": f"students/{arm}/{seed}",
    }


def calls(**changes: Any) -> dict[str, Any]:
    zero = {
        "asked": 0, "hits": 0, "answered": 0, "failed": {}, "not_attempted": 0, "attempts": 0, "input_tokens": 0,
        "output_tokens": 0, "cost_usd": 0.0, "hit_input_tokens": 0, "hit_output_tokens": 0, "hit_cost_usd": 0.0,
        "ignored": {}, "served": {}, "seconds": 0.0,
    }  # fmt: skip
    return zero | changes


def manifest(**changes: Any) -> dict[str, Any]:
    steps = [
        step("gold", 0, "file", "seeds", 1000, {}),
        step("answers", 0, "hub", "seeds", 1000, {}),
        step("answers", 1, "labeling.reason", "elicit", 960, {"truncated": 30, "refused": 10}, teacher=True),
        step("answers", 2, "quality.correct", "select", 700, {"different": 200, "unparsable": 60}),
        step("beliefs", 0, "hub", "seeds", 1000, {}),
        step("beliefs", 1, "labeling.reason", "elicit", 960, {"truncated": 30, "refused": 10}, teacher=True),
        step("beliefs", 2, "feature.top_logprobs", "elicit", 960, {}, teacher=True),
    ]
    asked = calls(
        asked=1960, hits=960, answered=1920, failed={"truncated": 30, "refused": 10}, attempts=1010, input_tokens=52_000,
        output_tokens=130_000, cost_usd=1.31, hit_input_tokens=50_000, hit_output_tokens=120_000, hit_cost_usd=1.25,
    )  # fmt: skip
    made = {
        "version": 1, "name": "arithmetic", "state": "done", "created": 1_795_000_000.0, "updated": 1_795_000_600.0,
        "command": "still run arithmetic.yaml", "recipe_hash": "98146aa17dc771bc", "seed": 0, "limit": None,
        "use": {"purpose": "research", "distributes": ["weights"]},
        "versions": {"python": "3.11.7", "stillhouse": "0.1.0", "torch": "2.13.0"}, "commit": "0123456789ab",
        "hardware": {"gpu": "1x H200", "cpu": "16 cores"}, "steps": steps,
        "students": [student(arm, seed) for seed in (0, 1) for arm in ("control", "text", "beliefs")],
        "teachers": [], "calls": {"big": asked}, "seconds": {"knowledge": 120.0, "train": 60.0, "evaluate": 30.0},
        "attempts": [1_795_000_000.0],
    }  # fmt: skip
    return made | changes


def summary(arm: str, mean: float, seeds: list[int | None], task: str = "qa") -> dict[str, Any]:
    per_seed = [{"seed": seed, "mean": mean + 0.01 * (at - 0.5), "unknown": 0} for at, seed in enumerate(seeds)]
    ends = {"low": max(mean - 0.06, 0.0), "high": mean + 0.06}
    return {
        "task": task,
        "arm": arm,
        "per_seed": per_seed,
        "mean": mean,
        **ends,
        "seeds": len(seeds),
        "items": 200,
        "left_out": 0,
    }


def compared(arm: str, against: str, difference: float, half: float = 0.05, task: str = "qa") -> dict[str, Any]:
    ends = {"low": difference - half, "high": difference + half}
    return {
        "task": task,
        "arm": arm,
        "against": against,
        "difference": difference,
        **ends,
        "seeds": 2,
        "items": 200,
        "left_out": 0,
    }


def scores(means: dict[str, float] | None = None, half: float = 0.05, **changes: Any) -> dict[str, Any]:
    """Scores of one task; each comparison is the difference of two means, `half` wide to both sides."""
    means = means or {"base": 0.12, "control": 0.30, "text": 0.42, "beliefs": 0.50, "teacher:big": 0.80}
    seeds: dict[str, list[int | None]] = {arm: [None] if arm == "base" or ":" in arm else [0, 1] for arm in means}
    arms = list(means)
    made = {
        "version": 1,
        "tasks": [
            {
                "task": "qa", "do": "qa", "knobs": {"path": "/data/held_out.jsonl"}, "metric": "score",
                "higher_is_better": True, "items": 200, "validation_items": 50, "teacher": "big",
            }
        ],
        "summary": [summary(arm, mean, seeds[arm]) for arm, mean in means.items()],
        "comparisons": [
            compared(arm, other, means[arm] - means[other], half) for at, arm in enumerate(arms) for other in arms[:at]
        ],
        "validation": [
            {"task": "qa", "arm": arm, "seed": seed, "mean": mean, "unknown": 0}
            for arm, mean in means.items()
            for seed in seeds[arm]
        ],
        "final": {"arm": "beliefs", "seed": 1},
    }  # fmt: skip
    return made | changes


def answer(arm: str, seed: int | None, item: int, right: bool, response: str) -> dict[str, Any]:
    return {
        "task": "qa", "arm": arm, "seed": seed, "item": f"item{item}", "split": "validation" if item % 5 == 0 else "test",
        "metric": "score", "prompt": f"What is {item} + {item}? {HOSTILE}", "reference": str(2 * item), "response": response,
        "value": float(right), "reason": "equal" if right else "different",
    }  # fmt: skip


def run_folder(home: Path, *, items: int = 40, **changes: Any) -> Path:
    """A finished run with three arms of two seeds, two controls and a paid teacher; its texts are hostile."""
    run = home / "run"
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    write(run / "manifest.json", manifest(**changes))
    write(run / "evaluate" / "scores.json", scores())
    (run / "student").mkdir(exist_ok=True)
    who: list[tuple[str, int | None, int]] = [("base", None, 7), ("teacher:big", None, 1)]
    who += [(arm, seed, every) for arm, every in (("control", 4), ("text", 3), ("beliefs", 2)) for seed in (0, 1)]
    for arm, seed, every in who:
        label = arm.replace(":", "-") if seed is None else f"{arm}-{seed}"
        rows = [answer(arm, seed, i, i % every == 0, f"{arm} says {2 * i} {HOSTILE}") for i in range(items)]
        write_rows(run / "evaluate" / "qa" / f"{label}.jsonl", rows)
    metrics = [
        {
            "arm": arm, "seed": seed, "phase": phase, "step": n, "loss": 4 / (n + 30 * phase) ** 0.4 + seed / 20,
            "loss/x on y": 1.0, "learning_rate": 1e-3, "input_tokens": 300 * n, "target_tokens": 100 * n,
        }
        for arm in ("control", "text", "beliefs")
        for seed in (0, 1)
        for phase in (0, 1)
        for n in range(1, 31)
    ]  # fmt: skip
    write_rows(run / "metrics.jsonl", metrics)
    return run
