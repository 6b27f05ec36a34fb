"""Makes the pocket teacher and the base student from nothing: `python -m tools.pocket.make --text DIR`.

Stopped, it goes on from its last checkpoint. The folders in src/stillhouse/pocket are replaced whole, again and again,
so there is a usable teacher long before the end.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tools.pocket import batches, card, demo, model, tokenizer, train
from tools.pocket.measure import measure

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "src" / "stillhouse" / "pocket"
PLANS = {
    "student": train.Plan(pools=22, batch_tokens=2048, learning_rate=3e-3),
    "teacher": train.Plan(pools=86, batch_tokens=2048, learning_rate=2e-3),
}


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    shared = prepare_tokenizer(options)
    costs = {name: make(name, shared, options) for name in PLANS}
    demo.write(HERE.parents[1] / "src" / "stillhouse" / "recipes" / "demo")
    results = {
        "commit": commit(),
        "hardware": f"{hardware()}, {options.threads} thread",
        "command": " ".join(["python -m tools.pocket.make", *sys.argv[1:]]),
        "seed": options.seed,
        "seconds": round(time.monotonic() - began),
        "training": costs,
        "skills": {name: measure(load(SHIPPED / name), shared, options.items) for name in PLANS},
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    card.write(results, SHIPPED, HERE / "README.md")
    print(card.table(results["skills"]))


def parse() -> argparse.Namespace:
    data = os.environ.get("STILLHOUSE_TEST_DATA")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--text",
        type=Path,
        default=Path(data) / "text" if data else None,
        required=not data,
        help="folder with the public-domain books (default: $STILLHOUSE_TEST_DATA/text)",
    )
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="where checkpoints are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--items", type=int, default=300, help="held-out items per skill")
    return parser.parse_args()


def prepare_tokenizer(options: argparse.Namespace) -> PreTrainedTokenizerFast:
    folder = options.work / "tokenizer"
    if not folder.exists():
        tokenizer.train(options.text, seed=options.seed).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def make(name: str, shared: PreTrainedTokenizerFast, options: argparse.Namespace) -> dict[str, float]:
    source = batches.Source(shared, options.text, seed=options.seed, skills=name == "teacher")
    return train.train(
        model.build(name, shared, seed=options.seed),
        shared,
        source,
        PLANS[name],
        state=options.work / f"{name}.pt",
        folder=SHIPPED / name,
    )


def load(folder: Path) -> torch.nn.Module:
    """What was shipped is measured: the fp16 weights, computed with in fp32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def commit() -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()


def hardware() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0].split(': ')[1]}, {len(names)} cores" if names else platform.processor()


if __name__ == "__main__":
    main()
