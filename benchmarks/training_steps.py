"""C6 and C8: steps of whole trainers, against TRL's.

`on_policy` (C6): 16 prompts, 64 new tokens each, a teacher of 0.26M and a student of 0.1M weights, reverse KL; against TRL's
DistillationTrainer and GKDTrainer(lmbda=1), and against the bare rollout, forward and backward passes.
`ragged` (C8): examples of 80 tokens on average and at most 512, vocabulary 32,000, the shapes of a 15M teacher and a 3M
student, forward KL; against GKDTrainer(lmbda=0). The mean KL to the teacher on held-out rows is told for both.

Loss and gradient of one batch are compared with TRL's before anything is timed (relative 1e-4).
Each contestant trains in a process of its own, with one thread; they take turns, a few steps at a time, and the median of
the ratios of neighbours is reported, of wall and of processor seconds. Peak memory is the growth over what the process held
before it loaded its models. The peers have torch's default environment, this library has the one its command starts in
(`--same-environment` gives all of them that one). float32 everywhere, weights at random: it is the work that is measured.

    python benchmarks/training_steps.py on_policy|ragged [--turns 5] [--every 4] [--force] [--same-environment]
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from timing.equality import same_loss
from timing.record import RESULTS, about, ratios, refuse_a_busy_machine, write
from timing.training import held_out_kl, prepare
from timing.turns import in_turns, plain_environment

from stillhouse.train.environment import recommended_environment

WORKLOADS: dict[str, dict[str, Any]] = {
    "on_policy": {
        "batch": 16,
        "new": 64,
        "divergence": "reverse_kl",
        "against": ["bare", "trl_distillation", "trl_gkd"],
    },
    "ragged": {"batch": 8, "new": 64, "divergence": "forward_kl", "against": ["trl_gkd"]},
}


def main() -> int:
    options = _options()
    refuse_a_busy_machine(options.force)
    workload = {**WORKLOADS[options.workload]}
    result = about(
        f"{'C6' if options.workload == 'on_policy' else 'C8'}: steps of whole trainers, {options.workload}",
        threads=1, seed=0, forced=options.force, paths=["benchmarks/training_steps.py", "benchmarks/timing"],
    )  # fmt: skip
    contestants = ["still", *(options.against or workload.pop("against"))]
    workload.pop("against", None)
    job = {
        "workload": options.workload,
        "threads": 1,
        "every": options.every,
        "steps": options.every * (options.turns + 1),
        "checkpointing": options.checkpointing,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.workload, rows=job["steps"] * workload["batch"])
        equal = same_loss(folder, workload["divergence"])
        measured = _measured({**job, **workload, "folder": name}, contestants, options)
        students = {who: folder / f"after_{who}" for who in contestants if (folder / f"after_{who}").is_dir()}
        apart = (
            {}
            if options.workload == "on_policy"
            else {who: held_out_kl(folder, path) for who, path in students.items()}
        )
        if apart:
            apart["before"] = held_out_kl(folder, folder / "student")
    seconds = measured["wall_and_processor_seconds"]
    others = contestants[1:]
    for key, number in (("wall_ratio", 0), ("processor_ratio", 1)):
        measured[key] = {
            who: ratios([s[number] for s in seconds[who]], [s[number] for s in seconds["still"]]) for who in others
        }
    measured["memory_ratio"] = {who: measured["peak_mb"][who] / measured["peak_mb"]["still"] for who in others}
    print(json.dumps({k: measured[k] for k in ("wall_ratio", "processor_ratio", "peak_mb")} | {"kl": apart}, indent=1))
    how = [options.workload] + [n for n in ("same_environment", "checkpointing") if getattr(options, n)]
    path = RESULTS / f"training_steps-{'-'.join(how)}.json"
    write(path, {**result, **job, **workload, "same_loss": equal, "held_out_kl": apart, **measured})
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="?", choices=list(WORKLOADS), default="on_policy")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--every", type=int, default=4, help="steps to a turn")
    parser.add_argument("--against", nargs="*")
    parser.add_argument("--same-environment", action="store_true")
    parser.add_argument(
        "--checkpointing", action="store_true", help="leave TRL's gradient checkpointing on, its default"
    )
    parser.add_argument("--force", action="store_true")
    return parser.parse_args()


def _measured(job: dict[str, Any], contestants: list[str], options: argparse.Namespace) -> dict[str, Any]:
    plain = plain_environment(job["threads"])
    tuned = {**plain, **recommended_environment(plain)}
    ours = ("still", "bare")
    return in_turns(
        job,
        {who: (who, tuned if who in ours or options.same_environment else plain) for who in contestants},
        options.turns,
    )


if __name__ == "__main__":
    sys.exit(main())
