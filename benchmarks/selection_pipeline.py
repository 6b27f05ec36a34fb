"""A whole run with one selector beside distilabel's pipeline with one step, on the same documents with planted copies.

Both read, find near-duplicates by MinHash (128 hashes, 0.8) and write; ours screens for secrets and writes cards and a report
as well. Processes of their own, in turns: processor seconds of the whole process with its children (imports and all), and the
wall seconds that each tells of its run alone. PYTHON is an interpreter that has distilabel:

    python -m venv DIR && DIR/bin/pip install 'distilabel[minhash]==1.5.3' 'datasketch==1.6.5' nltk requests beautifulsoup4
    python benchmarks/selection_pipeline.py --distilabel PYTHON [--documents 20000] [--turns 3]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from selection_speed import SEED, documents

Measured = dict[str, Any]
HERE = Path(__file__).parent
DISTILABEL = """
import json, sys, time, resource
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, MinHashDedup
rows = [{"text": text} for text in json.load(open(sys.argv[1]))]
with Pipeline(name="near-duplicates") as pipeline:
    load = LoadDataFromDicts(data=rows, batch_size=1000)
    near = MinHashDedup(tokenizer="ngrams", n=5, threshold=0.8, num_perm=128, input_batch_size=1000)
    load >> near
began = time.perf_counter()
found = pipeline.run(use_cache=False)
kept = found["default"]["train"]["keep_row_after_minhash_filtering"]
print(json.dumps({"wall_s": time.perf_counter() - began, "rows": len(rows), "dropped": sum(not each for each in kept)}))
"""


def main() -> int:
    options = _options()
    if options.own:
        print(json.dumps(own_run(options.own)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        rows = list(documents(options.documents))
        texts.write_text(json.dumps([text for _, text, _ in rows]), encoding="utf-8")
        commands = {
            "distilabel": [options.distilabel, "-c", DISTILABEL, str(texts)],
            "stillhouse": [sys.executable, str(Path(__file__).resolve()), "--own", str(texts)],
        }
        turns = [{name: _process(each, folder) for name, each in commands.items()} for _ in range(options.turns)]
    planted = sum(copy for *_, copy in rows)
    for name in commands:
        assert abs(turns[0][name]["dropped"] - planted) <= 0.03 * planted, f"{name} dropped {turns[0][name]['dropped']}"
    ratios = {
        clock: [turn["distilabel"][clock] / turn["stillhouse"][clock] for turn in turns]
        for clock in ("cpu_s", "wall_s")
    }
    result = {
        "what": "a whole run with one MinHash selector beside distilabel's pipeline: distilabel's seconds over ours",
        "claims": {clock: {"median": statistics.median(each), "turns": each} for clock, each in ratios.items()},
        "turns": turns, "planted": planted, "seed": SEED,
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip(),
        "command": f"python benchmarks/selection_pipeline.py --distilabel PYTHON --documents {options.documents} "
        f"--turns {options.turns}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "versions": {"stillhouse": metadata.version("stillhouse"), "distilabel": "1.5.3"},
    }  # fmt: skip
    (HERE / "results" / "selection_pipeline.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["claims"], indent=2))
    return 0


def own_run(texts: Path) -> Measured:
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
    began = time.perf_counter()
    run = distill(recipe, out=folder / "run", quiet=True)
    spent = time.perf_counter() - began
    return {"wall_s": spent, "rows": len(told), "dropped": len(told) - len(run.records("kept"))}


def _process(command: list[str], folder: str) -> Measured:
    """What a process tells on its last line, with the processor seconds of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        raise SystemExit(f"{command[0]} failed")
    told: Measured = json.loads(done.stdout.splitlines()[-1])
    told["cpu_s"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(told, flush=True)
    return told


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--distilabel", help="an interpreter that has distilabel")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--own", type=Path, help="one whole run of ours on this file of texts, and nothing else")
    options = parser.parse_args()
    if not options.own and not options.distilabel:
        parser.error("--distilabel names an interpreter that has it")
    return options


if __name__ == "__main__":
    sys.exit(main())
