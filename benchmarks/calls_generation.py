"""C5: answers per second of a local teacher, against a loop over `generate` one prompt at a time, and in batches of 64.

256 ragged prompts, up to `--new` tokens each at temperature 1, the same weights and threads for all. Contestants take turns
and the medians of the ratios of neighbours are reported. Before anything is timed, the mean negative log-likelihood
under the teacher itself must agree within two standard errors: a faster sampler of another distribution would not count.
Refuses to run when the machine is busier than it has cores; `--force` runs and records that.

MODEL is a folder, the pocket teacher if left out, or `random_15M`: 15M weights at random and a vocabulary of 32,000, where
drawing a token costs as much as the model does.

    python benchmarks/calls_generation.py [MODEL] [--prompts 256] [--new 96] [--batch 64] [--turns 3] [--threads 1] [--force]
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from timing.training import prepare

from stillhouse.pocket import teacher_path

HERE = Path(__file__).resolve().parent
RANDOM = "random_15M"


def main() -> int:
    options = _options()
    if os.getloadavg()[0] > (os.cpu_count() or 1) and not options.force:
        print(f"the load is {os.getloadavg()[0]:.1f}: wait, or give --force", file=sys.stderr)
        return 1
    import torch

    torch.set_num_threads(options.threads)
    from stillhouse.teachers.transformers import Teacher

    with tempfile.TemporaryDirectory() as folder:
        if options.model == RANDOM:
            prepare(Path(folder), "ragged", rows=1)
        place = str(Path(folder) / "teacher") if options.model == RANDOM else options.model
        teacher = Teacher(model=place, device="cpu", batch_size=options.batch)
        teacher.module(), teacher.tokenizer()
    prompts = _prompts(teacher, options.prompts, options.model)
    contestants: dict[str, Callable[[], list[tuple[list[int], list[int]]]]] = {
        "stillhouse": lambda: _ours(teacher, prompts, options.new, options.batch),
        "transformers batches": lambda: _batches(teacher, prompts, options.new, options.batch),
        "transformers one by one": lambda: _batches(teacher, prompts, options.new, 1),
    }
    answers = {name: contestant() for name, contestant in contestants.items()}
    likelihoods = {name: _likelihood(teacher, rows) for name, rows in answers.items()}
    # by the clock on the wall, and by the processor's, which other work on the machine changes little
    rates: dict[str, list[list[float]]] = {name: [] for name in contestants}
    for _ in range(options.turns):
        for name, contestant in contestants.items():
            wall, busy = time.perf_counter(), time.process_time()
            tokens = sum(len(new) for _, new in contestant())
            rates[name].append([tokens / (time.perf_counter() - wall), tokens / (time.process_time() - busy)])
    result = _result(options, rates, likelihoods)
    path = HERE / "results" / f"calls_generation{'-random_15M' if options.model == RANDOM else ''}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["ratios"], indent=2))
    return 0 if result["same_distribution"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(teacher_path()), help="a folder that from_pretrained loads")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--new", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--force", action="store_true")
    return parser.parse_args()


def _prompts(teacher: Any, number: int, model: str) -> list[list[int]]:
    """Ragged: 8 to 64 tokens of the model's own text, or any where it has none."""
    draw, tokenizer = random.Random(0), teacher.tokenizer()
    if model == RANDOM:
        return [[draw.randrange(5, 32_000) for _ in range(draw.randint(8, 64))] for _ in range(number)]
    story = tokenizer(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. " * 4
    )
    return [story["input_ids"][: draw.randint(8, 64)] for _ in range(number)]


def _ours(teacher: Any, prompts: list[list[int]], new: int, batch: int) -> list[tuple[list[int], list[int]]]:
    from stillhouse.generate import generate_sorted
    from stillhouse.render import end_ids, pad_id

    model, tokenizer = teacher.module(), teacher.tokenizer()
    answers = generate_sorted(
        model, prompts, batch_size=batch, seeds=range(len(prompts)), max_new_tokens=new, temperature=1.0,
        eos_ids=end_ids(tokenizer, model.generation_config), pad_id=pad_id(tokenizer),
    )  # fmt: skip
    return [(prompts[index], generated.ids) for index, generated in answers]


def _batches(teacher: Any, prompts: list[list[int]], new: int, batch: int) -> list[tuple[list[int], list[int]]]:
    """The library's own generate, sorted by length too, so that padding is not what is measured."""
    import torch
    from transformers import set_seed

    set_seed(0)
    model, tokenizer = teacher.module(), teacher.tokenizer()
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    rows, order = [], sorted(prompts, key=len, reverse=True)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        longest = len(part[0])
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in part])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in part])
        how = {
            "do_sample": True,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "max_new_tokens": new,
            "pad_token_id": pad,
        }
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=mask, **how)[:, longest:].tolist()
        rows += [(row, _until_end(answer, model.generation_config.eos_token_id)) for row, answer in zip(part, out)]
    return rows


def _until_end(ids: list[int], end: int | list[int]) -> list[int]:
    ends = set(end if isinstance(end, list) else [end])
    for at, token in enumerate(ids):
        if token in ends:
            return ids[: at + 1]
    return ids


def _likelihood(teacher: Any, rows: list[tuple[list[int], list[int]]]) -> tuple[float, float]:
    """(mean negative log-likelihood per token, standard error over rows)."""
    import torch

    model, means = teacher.module(), []
    for prompt, new in rows:
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + new])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        means.append(-float(logits.gather(-1, torch.tensor(new)[:, None]).mean()))
    return statistics.mean(means), statistics.stdev(means) / len(means) ** 0.5


def _result(
    options: argparse.Namespace, rates: dict[str, list[list[float]]], likelihoods: dict[str, Any]
) -> dict[str, Any]:
    ours = rates["stillhouse"]
    ratios = {
        clock: {
            name: statistics.median(mine[at] / theirs[at] for mine, theirs in zip(ours, peer))
            for name, peer in rates.items()
        }
        for at, clock in enumerate(("wall", "processor"))
    }
    mean, error = likelihoods["stillhouse"]
    same = all(
        abs(mean - other) <= 2 * (error**2 + other_error**2) ** 0.5 for other, other_error in likelihoods.values()
    )
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    return {
        "benchmark": "C5: throughput of a local teacher",
        "command": " ".join(["python", "benchmarks/calls_generation.py", *sys.argv[1:]]),
        "commit": commit or "none",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "load": os.getloadavg()[0],
        },
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "seed": 0,
        "tokens_per_second_wall_and_processor": rates,
        "ratios": ratios,
        "targets": {"transformers one by one": 10.0, "transformers batches": 1.5},
        "negative_log_likelihood": likelihoods,
        "same_distribution": same,
    }


if __name__ == "__main__":
    sys.exit(main())
