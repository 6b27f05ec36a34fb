"""How long the package takes to import and `still --help` to answer: medians, wall and processor time.

python benchmarks/startup.py [--turns 9]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from timing.record import RESULTS, about, write

TARGET_S = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    result = about("startup", threads=1, seed=0, forced=True, paths=("src/stillhouse",), packages=("typer",))
    commands = {
        "an empty interpreter": [sys.executable, "-c", "pass"],
        "import stillhouse": [sys.executable, "-c", "import stillhouse"],
        "still --help": [str(Path(sys.executable).with_name("still")), "--help"],
    }
    found: dict[str, dict[str, Any]] = {name: {"wall_s": [], "cpu_s": []} for name in commands}
    for _ in range(options.turns):
        for name, command in commands.items():
            before, began = os.times(), time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            after = os.times()
            found[name]["wall_s"].append(round(time.perf_counter() - began, 3))
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            found[name]["cpu_s"].append(round(spent, 3))
    medians = {name: {kind: statistics.median(each) for kind, each in of.items()} for name, of in found.items()}
    print(medians)
    write(RESULTS / "startup.json", {**result, "found": found, "medians": medians, "target_s": TARGET_S})
    return 0 if all(each["wall_s"] < TARGET_S for each in medians.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
