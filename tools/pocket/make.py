"""Makes the pocket teacher and the base student from nothing: `python -m tools.pocket.make --text DIR`.

Stopped, it goes on from its last checkpoint. The folders in src/stillhouse/pocket are replaced whole, again and again,
so there is a usable teacher long before the end. `--measure` measures what is shipped and trains nothing.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tools.pocket import batches, card, demo, model, tokenizer, train
from tools.pocket.measure import measure

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHIPPED = ROOT / "src" / "stillhouse" / "pocket"
RESULTS, TRAINING = HERE / "results.json", HERE / "training.json"
PLANS = {
    "student": train.Plan(pools=22, batch_tokens=2048, learning_rate=3e-3),
    # at 2e-3 one-digit sums were still wrong after seven million tokens
    "teacher": train.Plan(pools=100, batch_tokens=2048, batches_per_step=2, learning_rate=8e-4),
}


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if not options.measure:
        make(options)
    report(options)


def parse() -> argparse.Namespace:
    data = os.environ.get("STILLHOUSE_TEST_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text",
        type=Path,
        default=Path(data) / "text" if data else None,
        help="folder with the public-domain books (default: $STILLHOUSE_TEST_DATA/text)",
    )
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="where checkpoints are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--items", type=int, default=300, help="held-out items per skill")
    parser.add_argument("--measure", action="store_true", help="only measure what is shipped")
    options = parser.parse_args()
    if options.text is None and not options.measure:
        parser.error("say where the books are: --text DIR, or set STILLHOUSE_TEST_DATA")
    return options


def make(options: argparse.Namespace) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    shared = prepare_tokenizer(options)
    costs = {name: make_model(name, shared, options) for name in PLANS}
    TRAINING.write_text(json.dumps({"command": command(), **costs}, indent=1) + "\n", encoding="utf-8")
    demo.write(ROOT / "src" / "stillhouse" / "recipes" / "demo")


def prepare_tokenizer(options: argparse.Namespace) -> PreTrainedTokenizerFast:
    folder = options.work / "tokenizer"
    if not folder.exists():
        tokenizer.train(options.text, seed=options.seed).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def make_model(name: str, shared: PreTrainedTokenizerFast, options: argparse.Namespace) -> dict[str, float]:
    source = batches.Source(shared, options.text, seed=options.seed, skills=name == "teacher")
    untrained = model.build(name, shared, seed=options.seed)
    state = options.work / f"{name}.pt"
    return train.train(untrained, shared, source, PLANS[name], state=state, folder=SHIPPED / name)


def report(options: argparse.Namespace) -> None:
    results = {
        "commit": commit(),
        "hardware": f"{hardware()}, {options.threads} thread{'s' * (options.threads > 1)}",
        "command": command(),
        "seed": options.seed,
        "training": json.loads(TRAINING.read_text(encoding="utf-8")),
        "parameters": {name: load(name).num_parameters() for name in PLANS},
        "skills": {
            name: measure(load(name), AutoTokenizer.from_pretrained(SHIPPED / name), options.items) for name in PLANS
        },
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    card.write(results, SHIPPED, HERE / "README.md")
    print(card.table(results["skills"]))


def load(name: str) -> torch.nn.Module:
    """What is shipped is measured: the fp16 weights, computed with in fp32."""
    return AutoModelForCausalLM.from_pretrained(SHIPPED / name, dtype=torch.float32)


def command() -> str:
    """As typed, but for the text folder: where that lies is nobody's business."""
    typed = list(sys.argv[1:])
    if "--text" in typed:
        typed[typed.index("--text") + 1] = "DIR"
    return " ".join(["python -m tools.pocket.make", *typed])


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], cwd=HERE, capture_output=True, text=True)
    return found.stdout.strip() or "not committed yet"


def hardware() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0].split(': ')[1]}, {len(names)} cores" if names else platform.processor()


if __name__ == "__main__":
    main()
