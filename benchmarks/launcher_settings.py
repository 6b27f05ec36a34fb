"""What each setting of `still run`'s launcher brings: steps of our own trainer with and without it, in turns.

The workload is `ragged` of `training_steps.py` (vocabulary 32,000, the shapes of a 15M teacher and a 3M student), with as many
threads as there are cores. The first contestant has none of the settings. Ratios above 1 are the setting's gain.

    python benchmarks/launcher_settings.py [--turns 5] [--every 2] [--force]
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from timing.record import RESULTS, about, ratios, refuse_a_busy_machine, write
from timing.training import prepare
from timing.turns import in_turns, plain_environment

from stillhouse.train.environment import cores, recommended_environment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--every", type=int, default=2, help="steps to a turn")
    parser.add_argument("--force", action="store_true")
    options = parser.parse_args()
    refuse_a_busy_machine(options.force)
    threads = cores()
    result = about(
        "what each of the launcher's settings brings", threads=threads, seed=0, forced=options.force,
        paths=["benchmarks/launcher_settings.py", "benchmarks/timing"],
    )  # fmt: skip
    plain = plain_environment(threads)
    added = recommended_environment(plain)
    waiting = {name: value for name, value in added.items() if name.startswith("OMP_")}
    memory = {name: value for name, value in added.items() if name.startswith("MALLOC_")}
    variants = {"none": {}, "waiting": waiting, "allocator": memory, "all": added}
    steps = options.every * (options.turns + 1)
    job = {"workload": "ragged", "threads": threads, "every": options.every, "steps": steps, "batch": 8, "new": 64,
           "divergence": "forward_kl", "checkpointing": False}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), "ragged", rows=steps * 8)
        contestants = {name: ("still", {**plain, **more}) for name, more in variants.items()}
        found = in_turns({**job, "folder": folder}, contestants, options.turns)
    seconds = found["wall_and_processor_seconds"]
    gains = {
        clock: {
            name: ratios([each[at] for each in seconds["none"]], [each[at] for each in seconds[name]])
            for name in variants
        }
        for at, clock in enumerate(("wall", "processor"))
    }
    print(json.dumps({**gains, "peak_mb": found["peak_mb"]}, indent=1))
    write(RESULTS / "launcher_settings.json", {**result, **job, "variants": variants, "gains": gains, **found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
