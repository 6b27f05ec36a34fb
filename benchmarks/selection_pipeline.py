"""Selections beside the same selections as steps of distilabel's pipeline, and a whole run beside its whole process.

Operations: `dedup.minhash`, `dedup.rouge` and `decontaminate.ngrams` over records, and `pipeline.run` with one step
(selecting/distilabel_steps.py): processor seconds of the operation alone, imports and data left out on both sides. Each
contestant has a process of its own, in turns. What each drops is compared with what was planted first.

Whole: a run with one MinHash selector as `still run` makes it, which also screens for secrets and writes records, cards and a
report, beside the pipeline: processor seconds of the whole processes with their children, imports and all.

PYTHON is an interpreter that has distilabel:

    python -m venv DIR && DIR/bin/pip install 'distilabel[minhash]==1.5.3' 'datasketch==1.6.5' nltk requests beautifulsoup4 \
        rouge-score
    python benchmarks/selection_pipeline.py --data DIR --distilabel PYTHON [--documents 20000] [--instructions 1000] [--turns 5]
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from selection_speed import SEED, documents, instructions
from timing.record import RESULTS, about, write

Measured = dict[str, Any]
HERE = Path(__file__).resolve().parent
TARGET, OPERATIONS = 20, ("minhash", "novelty", "ngrams")
# recall and precision that each must reach; distilabel compares runs of characters, so its borders are others
FLOORS = {"minhash": (0.97, 0.95), "novelty": (0.99, 0.99), "ngrams": (1.0, 0.99)}


def main() -> int:
    options = _options()
    if options.only:
        print(json.dumps(_own(options.only, options.texts, options.held)))
        return 0
    result = about("selection_pipeline", threads=1, seed=SEED, forced=True, paths=("src/stillhouse/selection",))
    with tempfile.TemporaryDirectory() as named:
        folder = Path(named)
        planted = _data(options, folder)
        turns = [_turn(options, folder, planted) for _ in range(options.turns)]
    claims = {}
    for name in (*OPERATIONS, "whole"):
        for clock in ("cpu_s", "wall_s"):
            found = [turn[name]["distilabel"][clock] / turn[name]["stillhouse"][clock] for turn in turns]
            claims[f"{name} {clock}"] = {"median": statistics.median(found), "turns": found}
    sizes = {"documents": options.documents, "instructions": options.instructions}
    told = {
        "what": "distilabel's seconds over ours",
        "sizes": sizes,
        "target": TARGET,
        "claims": claims,
        "turns": turns,
    }
    options_told = f"--documents {options.documents} --instructions {options.instructions} --turns {options.turns}"
    result["command"] = f"python benchmarks/selection_pipeline.py --data DIR --distilabel PYTHON {options_told}"
    write(RESULTS / "selection_pipeline.json", {**result, "distilabel": "1.5.3", **told})
    print({name: round(claim["median"], 2) for name, claim in claims.items()})
    return 0 if all(claims[f"{name} cpu_s"]["median"] >= TARGET for name in OPERATIONS) else 1


def _data(options: argparse.Namespace, folder: Path) -> dict[str, set[str]]:
    """Writes the texts of each operation; gives the texts that are to be dropped."""
    near = [(text, copy) for _, text, copy in documents(options.documents)]
    new = [(text, copy) for _, text, copy in instructions(options.instructions, options.data)]
    test = options.data / "gsm8k" / "test.jsonl"
    held = [json.loads(line)["question"] for line in test.open(encoding="utf-8")]
    words = (options.data / "text" / "bronte.txt").read_text(encoding="utf-8").split()
    rows = [" ".join(words[i : i + 60]) for i in range(0, len(words), 60)]
    draw = random.Random(SEED)
    mixed = [(row, False) for row in rows] + [(f"{draw.choice(rows)} {draw.choice(held)}", True) for _ in range(100)]
    (folder / "held.json").write_text(json.dumps(held), encoding="utf-8")
    (folder / "held.jsonl").write_text(
        "".join(json.dumps({"question": text}) + "\n" for text in held), encoding="utf-8"
    )
    given = {"minhash": near, "novelty": new, "ngrams": mixed}
    for name, pairs in given.items():
        (folder / f"{name}.json").write_text(json.dumps([text for text, _ in pairs]), encoding="utf-8")
    return {name: {text for text, copy in pairs if copy} for name, pairs in given.items()}


def _turn(options: argparse.Namespace, folder: Path, planted: dict[str, set[str]]) -> dict[str, dict[str, Measured]]:
    turn: dict[str, dict[str, Measured]] = {}
    whole: dict[str, Measured] = {}
    for name in OPERATIONS:
        files = [str(folder / f"{name}.json"), str(folder / ("held.json"))]
        theirs, process = _process(
            [options.distilabel, str(HERE / "selecting" / "distilabel_steps.py"), name, *files], folder
        )
        ours, _ = _process([sys.executable, __file__, "--only", name, "--texts", files[0], "--held", files[1]], folder)
        turn[name] = {"distilabel": theirs, "stillhouse": ours}
        for who, told in turn[name].items():
            _right(name, who, set(told.pop("dropped")), planted[name])
        if name == "minhash":
            whole["distilabel"] = process
            _, whole["stillhouse"] = _process(
                [sys.executable, __file__, "--only", "whole", "--texts", files[0]], folder
            )
        print(name, {who: round(told["cpu_s"], 3) for who, told in turn[name].items()}, flush=True)
    print("whole", {who: round(told["cpu_s"], 3) for who, told in whole.items()}, flush=True)
    return {**turn, "whole": whole}


def _right(name: str, who: str, dropped: set[str], planted: set[str]) -> None:
    hits = len(dropped & planted)
    recall, precision = hits / len(planted), hits / max(len(dropped), 1)
    floors = FLOORS[name]
    assert recall >= floors[0] and precision >= floors[1], f"{who}, {name}: recall {recall}, precision {precision}"


def _process(command: list[str], folder: Path) -> tuple[Measured, Measured]:
    """What a process tells on its last line, and its own seconds from start to end, with its children."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        raise SystemExit(f"{' '.join(command[:4])} failed")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-1]), {"wall_s": wall, "cpu_s": cpu}


def _own(name: str, texts: Path, held: Path | None) -> Measured:
    if name == "whole":
        return _run(texts)
    from stillhouse.records import Seed, user
    from stillhouse.selection import decontaminate, dedup

    given = [Seed(str(n), user(text)) for n, text in enumerate(json.loads(texts.read_text(encoding="utf-8")))]
    work: dict[str, Callable[[], Iterable[tuple[Any, str | None]]]] = {
        "minhash": lambda: dedup.minhash(given, on="prompt"),
        "novelty": lambda: dedup.rouge(given),
        "ngrams": lambda: decontaminate.ngrams(
            given, path=str(held).replace(".json", ".jsonl"), fields=["question"], on="prompt"
        ),
    }
    began, worked = time.perf_counter(), time.process_time()
    dropped = [record.prompt[0].content for record, why in work[name]() if why]
    return {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - worked, "dropped": dropped}


def _run(texts: Path) -> Measured:
    from stillhouse import distill

    told = json.loads(texts.read_text(encoding="utf-8"))
    folder = texts.parent / f"run-{os.getpid()}"
    folder.mkdir()
    seeds = folder / "seeds.jsonl"
    seeds.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in told), encoding="utf-8")
    select = [{"do": "dedup.minhash", "on": "prompt"}]
    recipe = {
        "name": "near",
        "use": {"purpose": "research", "distributes": []},
        "knowledge": {"kept": {"seeds": {"do": "file", "path": str(seeds)}, "select": select}},
    }
    run = distill(recipe, out=folder / "run", quiet=True)
    return {"rows": len(told), "dropped": len(told) - len(run.records("kept"))}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("STILLHOUSE_TEST_DATA", "")))
    parser.add_argument("--distilabel", help="an interpreter that has distilabel")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--instructions", type=int, default=1_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", choices=(*OPERATIONS, "whole"), help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--held", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.only and not options.distilabel:
        parser.error("--distilabel names an interpreter that has it")
    return options


if __name__ == "__main__":
    sys.exit(main())
