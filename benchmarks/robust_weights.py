"""Weights learned under planted label noise (SunGen, R52): is a classifier better for them than with all labels alike?

Real texts: SVAMP's problems with one operation, classed by it. Of 450 training labels a share is replaced by another class;
`reweighting.bilevel` weighs them, and one linear classifier learns from all alike, by the weights, by the same weights in another
order (a control that must not help), from a subset drawn by them, and from the right labels alone (the most there is to win).
Accuracy on 300 others with their true classes; ten seeds; intervals as everywhere (paired bootstrap and Student's t).

    python benchmarks/robust_weights.py [--data DIR] [--seeds 10] [--vectors embedder]
"""

import argparse
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from timing.record import RESULTS, about, write

from stillhouse.elicit.reweighting import bilevel
from stillhouse.evaluate.compare import paired, single
from stillhouse.records import Example, user
from stillhouse.selection.bilevel import trained
from stillhouse.selection.features import area, rows_of
from stillhouse.selection.quality import drawn

TRAINED, HELD_OUT, NOISE = 450, 300, (0.0, 0.2, 0.4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("STILLHOUSE_TEST_DATA"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--vectors", choices=["both", "embedder", "words"], default="both")
    options = parser.parse_args()
    if options.data is None:
        parser.error("say where the problems are: --data, or STILLHOUSE_TEST_DATA")
    result = about("robust_weights", threads=1, seed=0, forced=True, paths=("src/stillhouse",), packages=("numpy",))
    embedders = {"potion-base-4M": str(Path(options.data) / "potion-base-4M-int8"), "hashed words": None}
    if options.vectors != "both":
        embedders = {name: path for name, path in embedders.items() if (path is None) == (options.vectors == "words")}
    rows = problems(Path(options.data))
    found = []
    for name, embedder in embedders.items():
        for noise in NOISE:
            runs = [one(rows, embedder, noise, seed) for seed in range(options.seeds)]
            found.append(told(name, noise, runs))
            print(json.dumps(found[-1]))
    result |= {"seeds": options.seeds, "problems": len(rows), "vectors": options.vectors, "found": found}
    write(RESULTS / "robust_weights.json", result)
    return 0


def problems(data: Path) -> list[tuple[str, str]]:
    """(text, operation) of the problems whose solution has one operation."""
    files = [data / "step-by-step" / "svamp" / f"svamp_{part}.json" for part in ("train", "test")]
    rows = [json.loads(line) for each in files for line in each.open(encoding="utf-8")]
    made = {row["input"]: [c for c in row["label"] if c in "+-*/"] for row in rows}
    return [(text, operations[0]) for text, operations in made.items() if len(operations) == 1]


def one(rows: list[tuple[str, str]], embedder: str | None, noise: float, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    mixed = draw.sample(rows, TRAINED + HELD_OUT)
    classes = sorted({label for _, label in rows})
    told = [
        draw.choice([other for other in classes if other != label]) if draw.random() < noise else label
        for _, label in mixed[:TRAINED]
    ]
    examples = [Example(str(n), user(mixed[n][0]), label) for n, label in enumerate(told)]
    weighed = [each for each in bilevel(examples, embedder=embedder) if isinstance(each, Example)]
    weights = np.array([each.columns["weight"] for each in weighed])
    right = np.array([label == mixed[n][1] for n, label in enumerate(told)])
    kept = {each.id for each, why in drawn(weighed, keep=round(weights.sum()), seed=seed) if why is None}
    shuffled = np.random.default_rng(seed).permutation(weights)
    arms = {
        "alike": np.ones(TRAINED),
        "weighted": weights,
        "drawn": np.array([each.id in kept for each in weighed], float),
        "shuffled": shuffled,
        "right_only": right.astype(float),
    }
    rows_ND = rows_of((text for text, _ in mixed), embedder)
    target_N = np.array([classes.index(label) for label in told])
    wanted_N = np.array([classes.index(label) for _, label in mixed[TRAINED:]])
    hits = {}
    for arm, weight_N in arms.items():
        chances_NK = trained(rows_ND[:TRAINED], target_N, weight_N)(rows_ND[TRAINED:])
        hits[arm] = (chances_NK.argmax(1) == wanted_N).astype(float)
    return {"hits": hits, "mean_weight": float(weights.mean()), "area": area(weights, right.tolist())}


def told(name: str, noise: float, runs: list[dict[str, Any]]) -> dict[str, Any]:
    values = {arm: np.stack([run["hits"][arm] for run in runs]) for arm in runs[0]["hits"]}
    areas = [run["area"] for run in runs if run["area"] is not None]
    return {
        "vectors": name,
        "noise": noise,
        "mean_weight": float(np.mean([run["mean_weight"] for run in runs])),
        "right_above_wrong": float(np.mean(areas)) if areas else None,
        "accuracy": {arm: _interval(single(each)) for arm, each in values.items()},
        "minus_alike": {
            arm: _interval(paired(each, values["alike"])) for arm, each in values.items() if arm != "alike"
        },
    }


def _interval(interval: Any) -> list[float]:
    return [round(each, 4) for each in (interval.mean, interval.low, interval.high)]


if __name__ == "__main__":
    sys.exit(main())
