"""C7: novelty, near-duplicates and decontamination against the ways others do them; right first, then timed.

Novelty: `dedup.rouge` on synthetic instructions against a pool that grows, beside rouge-score's way (every pair, as the
released Self-Instruct has it). MinHash: `dedup.minhash` beside datasketch in bulk. Decontamination: `decontaminate.ngrams` in
MB/s against the GSM8K test set. A whole run beside distilabel's pipeline: selection_pipeline.py. Each contestant runs in
a process of its own, in turns; ratios of processor seconds of neighbours, their median, and wall seconds beside them.
Recall and precision on planted copies are asserted first.

    python benchmarks/selection_speed.py --data DIR [--novelty 100000] [--minhash 1000000] [--turns 3]
"""

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SEED = 0
Measured = dict[str, Any]


def instructions(count: int, data: Path, planted: float = 0.1) -> Iterator[tuple[int, str, bool]]:
    """(number, text, planted): sentences of real instructions' words; some repeat an earlier one but for a word."""
    seeds = [
        json.loads(line)["instruction"] for line in (data / "instruct" / "seed_tasks.jsonl").open(encoding="utf-8")
    ]
    rows = [json.loads(line)["question"] for line in (data / "gsm8k" / "train.jsonl").open(encoding="utf-8")]
    vocabulary = [word for text in seeds + rows for word in text.split()]
    rng, made = random.Random(SEED), list[str]()
    for number in range(count):
        if made and rng.random() < planted:
            words = rng.choice(made).split()
            words[rng.randrange(len(words))] = "otherwise"
            yield number, " ".join(words), True
        else:
            text = " ".join(rng.choices(vocabulary, k=rng.randint(8, 24)))
            if len(made) < 20_000:
                made.append(text)
            yield number, text, False


def novelty(count: int, data: Path) -> Measured:
    from stillhouse.records import Seed, user
    from stillhouse.selection.dedup import rouge

    rows = list(instructions(count, data))
    began = _clocks()
    dropped = [record.id for record, why in rouge(Seed(str(n), user(t)) for n, t, _ in rows) if why]
    spent = _since(began)
    planted = {str(n) for n, _, copy in rows if copy}
    return {**spent, "rows": count, "planted": len(planted), **_found(set(dropped), planted)}


def rouge_score_way(count: int, data: Path) -> Measured:
    """Every new instruction scored against the whole pool with rouge-score, as Self-Instruct's release does."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    rows = list(instructions(count, data))
    began, pool, pairs = _clocks(), list[list[str]](), 0
    tokenize = scorer._tokenizer.tokenize
    dropped = set()
    for number, text, _ in rows:
        tokens = tokenize(text)
        pairs += len(pool)
        scores = [rouge_scorer._score_lcs(tokens, other).fmeasure for other in pool]
        if max(scores, default=0) > 0.7:
            dropped.add(str(number))
        else:
            pool.append(tokens)
    spent = _since(began)
    planted = {str(n) for n, _, copy in rows if copy}
    return {**spent, "rows": count, "pairs": pairs, **_found(dropped, planted)}


def documents(count: int, planted: float = 0.05) -> Iterator[tuple[int, str, bool]]:
    """Short documents of a Zipf vocabulary; some repeat one of the last thousand but for a word (Jaccard 0.8 and above)."""
    import numpy as np

    rng, draw = np.random.default_rng(SEED), random.Random(SEED)
    recent: list[list[str]] = []
    words = [f"w{i}" for i in range(200_000)]
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        lengths = rng.integers(20, 41, size)
        flat = (rng.zipf(1.3, int(lengths.sum())) % 200_000).tolist()
        at = 0
        for number, length in zip(range(start, start + size), lengths.tolist(), strict=True):
            tokens = [words[i] for i in flat[at : at + length]]
            at += length
            copy = bool(recent) and draw.random() < planted
            if copy:
                tokens = [*draw.choice(recent), "more"]
            elif len(set(tokens)) > 12:
                recent = [*recent[-999:], tokens] if len(recent) > 1200 else [*recent, tokens]
            yield number, " ".join(tokens), copy


def minhash(count: int, data: Path) -> Measured:
    from stillhouse.records import Seed, user
    from stillhouse.selection.dedup import minhash as near

    planted: set[int] = set()

    def stream() -> Iterator[Seed]:
        for number, text, copy in documents(count):
            if copy:
                planted.add(number)
            yield Seed(str(number), user(text))

    making = _clocks()
    for number, text, _ in documents(count):
        Seed(str(number), user(text))
    making_s = _since(making)
    began, dropped = _clocks(), set[int]()
    for record, why in near(stream(), on="prompt"):
        if why:
            dropped.add(int(record.id))
    spent = _since(began)
    net = {key: spent[key] - making_s[key] for key in ("wall_s", "cpu_s")}
    return {**net, "rows": count, "peak_mb": _peak(), **_found(dropped, planted)}


def datasketch_bulk(count: int, data: Path) -> Measured:
    """datasketch's fastest documented way: MinHash.bulk over shingles, then an LSH index at the same threshold."""
    from datasketch import MinHash, MinHashLSH

    rows = list(documents(count))
    planted = {n for n, _, copy in rows if copy}
    began, dropped = _clocks(), set[int]()
    index = MinHashLSH(threshold=0.8, num_perm=128)
    for start in range(0, count, 1000):
        part = rows[start : start + 1000]
        shingled = [
            [" ".join(t[i : i + 3]).encode() for i in range(max(len(t) - 2, 1))]
            for t in (x.split() for _, x, _ in part)
        ]
        for (number, _, _), signature in zip(part, MinHash.bulk(shingled, num_perm=128), strict=True):
            if index.query(signature):
                dropped.add(number)
            else:
                index.insert(number, signature, check_duplication=False)
    return {**_since(began), "rows": count, "peak_mb": _peak(), **_found(dropped, planted)}


def ngrams(count: int, data: Path) -> Measured:
    """Rows of text checked against the GSM8K test set: its own questions planted among GSM8K training answers."""
    from stillhouse.records import Seed, user
    from stillhouse.selection.decontaminate import ngrams as overlapping

    test = data / "gsm8k" / "test.jsonl"
    held = [json.loads(line)["question"] for line in test.open(encoding="utf-8")]
    text = (data / "text" / "bronte.txt").read_text(encoding="utf-8") + (data / "text" / "darwin.txt").read_text(
        encoding="utf-8"
    )
    words = text.split()
    rows = [" ".join(words[i : i + 60]) for i in range(0, len(words), 60)]
    rng = random.Random(SEED)
    planted = {f"p{i}" for i in range(200)}
    seeds = [Seed(str(i), user(row)) for i, row in enumerate(rows)]
    seeds += [Seed(f"p{i}", user(f"{rng.choice(rows)} {rng.choice(held)}")) for i in range(200)]
    megabytes = sum(len(one.prompt[0].content.encode()) for one in seeds) / 1e6
    began = _clocks()
    dropped = {record.id for record, why in overlapping(seeds, path=str(test), fields=["question"], on="prompt") if why}
    spent = _since(began)
    return {**spent, "megabytes": megabytes, "mb_per_s": megabytes / spent["wall_s"], **_found(dropped, planted)}


CONTESTANTS: dict[str, Callable[[int, Path], Measured]] = {
    "novelty": novelty, "rouge_score_way": rouge_score_way, "minhash": minhash, "datasketch_bulk": datasketch_bulk,
    "ngrams": ngrams,
}  # fmt: skip


def main() -> int:
    options = _options()
    if options.only:
        print(json.dumps(CONTESTANTS[options.only](options.count, options.data)))
        return 0
    turns = [
        {
            "minhash": _run(options, "minhash", options.pairs),
            "datasketch_bulk": _run(options, "datasketch_bulk", options.pairs),
            "novelty": _run(options, "novelty", options.small),
            "rouge_score_way": _run(options, "rouge_score_way", options.small),
            "ngrams": _run(options, "ngrams", 0),
        }
        for _ in range(options.turns)
    ]
    whole = {"novelty": _run(options, "novelty", options.novelty), "minhash": _run(options, "minhash", options.minhash)}
    result = _result(options, turns, whole)
    path = HERE / "results" / "selection_speed.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["claims"], indent=2))
    return 0


def _run(options: argparse.Namespace, name: str, count: int) -> Measured:
    command = [sys.executable, __file__, "--only", name, "--count", str(count), "--data", str(options.data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told: Measured = json.loads(done.stdout.splitlines()[-1])
    print(name, told, flush=True)
    floor = {"novelty": 0.99, "minhash": 0.97, "ngrams": 1.0}.get(name, 0.0)
    assert told["recall"] >= floor, f"{name}: recall {told['recall']}"
    assert told["precision"] >= 0.999 or name == "datasketch_bulk", f"{name}: precision {told['precision']}"
    return told


def _found(dropped: set[Any], planted: set[Any]) -> Measured:
    """Recall of the planted copies, and the share of what was dropped that was planted."""
    hits = len(dropped & planted)
    return {"recall": hits / max(len(planted), 1), "precision": hits / max(len(dropped), 1), "dropped": len(dropped)}


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> dict[str, float]:
    now = _clocks()
    return {"wall_s": now[0] - began[0], "cpu_s": now[1] - began[1]}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _result(options: argparse.Namespace, turns: list[dict[str, Measured]], whole: dict[str, Measured]) -> Measured:
    def ratio(ours: str, theirs: str) -> Measured:
        found = [turn[theirs]["cpu_s"] / turn[ours]["cpu_s"] for turn in turns]
        return {"median": statistics.median(found), "turns": found}

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    claims = {
        "minhash_over_datasketch": ratio("minhash", "datasketch_bulk"),
        "novelty_over_rouge_score": ratio("novelty", "rouge_score_way"),
        "novelty_rows_per_s": whole["novelty"]["rows"] / whole["novelty"]["cpu_s"],
        "minhash_rows_per_s": whole["minhash"]["rows"] / whole["minhash"]["cpu_s"],
        "minhash_peak_mb": whole["minhash"]["peak_mb"],
        "ngrams_mb_per_cpu_s": statistics.median(
            turn["ngrams"]["megabytes"] / turn["ngrams"]["cpu_s"] for turn in turns
        ),
    }
    return {
        "what": "C7: selectors against rouge-score's way, datasketch in bulk; ratios of processor seconds",
        "claims": claims, "turns": turns, "whole": whole, "seed": SEED, "commit": commit,
        "command": _command(options), "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()},
        "versions": {name: metadata.version(name) for name in ("stillhouse", "datasketch", "rapidfuzz", "rouge-score", "numpy")},
    }  # fmt: skip


def _command(options: argparse.Namespace) -> str:
    """What was run, without the paths of this machine."""
    sizes = f"--novelty {options.novelty} --minhash {options.minhash} --pairs {options.pairs} --small {options.small}"
    return f"python benchmarks/selection_speed.py --data DIR {sizes} --turns {options.turns}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("STILLHOUSE_TEST_DATA", "")))
    parser.add_argument("--novelty", type=int, default=100_000)
    parser.add_argument("--minhash", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=20_000, help="documents for datasketch")
    parser.add_argument("--small", type=int, default=1_000, help="instructions for rouge-score's way")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=[*CONTESTANTS])
    parser.add_argument("--count", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
