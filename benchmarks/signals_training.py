"""C4: training from stored signals against the teacher beside the student, and against plain cross-entropy.

One student, one set of rows, one batch order; what differs is where the teacher's beliefs come from. Interleaved runs of
the whole trainer in one process, the median of their ratios; elicitation is not in the times of the stored arms (it is
told beside them) and neither is loading. TRL's GKDTrainer with lmbda 0 is the peer: teacher beside the student, no cache.

    python benchmarks/signals_training.py --data DATA [--steps 20] [--turns 5]      (DATA: the folder of test inputs)
"""

import argparse
import json
import os
import platform
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

import torch

from stillhouse.elicit import feature
from stillhouse.objectives import divergence, supervised
from stillhouse.pocket import teacher_path
from stillhouse.records import Example, content_id
from stillhouse.render import addressable
from stillhouse.teachers.transformers import Teacher
from stillhouse.train.student import Student
from stillhouse.train.trainer import Term, train

HERE = Path(__file__).resolve().parent
SEED = 0
BATCH = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("STILLHOUSE_TEST_DATA"), help="default: $STILLHOUSE_TEST_DATA"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rows", type=int, default=160)
    options = parser.parse_args()
    if options.data is None:
        parser.error("say where the stories are: --data DIR, or set STILLHOUSE_TEST_DATA")
    torch.set_num_threads(1)
    os.environ["STILLHOUSE_STORE"] = tempfile.mkdtemp()
    texts = json.loads((options.data / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))
    examples = [Example(content_id(text), (), text[:400]) for text in texts[: options.rows]]
    settings = {
        "stories260K (0.26M, V 512) to 0.09M": options.data / "stories260K" / "hf",
        "pocket (2.8M, V 2048) to 0.16M": teacher_path(),
    }
    found = {name: _setting(folder, examples, options.steps, options.turns) for name, folder in settings.items()}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    result = {
        "benchmark": "C4: stored signals against the teacher beside the student",
        "command": " ".join(["python", "benchmarks/signals_training.py", *sys.argv[1:]]).replace(
            str(options.data), "DATA"
        ),
        "commit": commit or "none",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "threads": 1, "load": os.getloadavg()[0]},
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "trl")},
        "seed": SEED,
        "workload": {
            "rows": len(examples),
            "steps": options.steps,
            "batch": BATCH,
            "student": "Llama 48 wide, 2 layers",
        },
        "clock": "processor time of the process",
        "settings": found,
        "targets": {"stored relative to plain text": 1.10, "TRL beside, relative to stored": 2.5},
    }
    (HERE / "results" / "signals_training.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: told["ratios"] for name, told in found.items()}, indent=1))
    return 0


def _setting(folder: Path, examples: list[Example], steps: int, turns: int) -> dict[str, Any]:
    teacher = Teacher(model=folder)
    arms, elicited = _arms(examples, teacher, steps)
    arms |= _trl(examples, folder, teacher.tokenizer(), steps)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        arm()  # the first run pays for imports
    for _ in range(turns):
        for name, arm in arms.items():
            seconds[name].append(round(arm(), 3))
    stored = ("top_k 64", "samples, 50 draws", "hidden states, bfloat16")
    peer = "TRL GKDTrainer, lmbda 0"
    return {
        "seconds": seconds,
        "seconds_to_elicit_once": elicited,
        "ratios": {
            "relative to plain text": {name: _ratio(seconds, name, "text") for name in arms},
            "TRL relative to stored": {name: _ratio(seconds, peer, name) for name in stored},
        },
    }


def _ratio(seconds: dict[str, list[float]], name: str, against: str) -> float:
    """The median over turns: both sides of a pair ran beside each other."""
    return round(statistics.median(mine / other for mine, other in zip(seconds[name], seconds[against])), 3)


def _student(tokenizer: Any) -> Student:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=addressable(tokenizer), hidden_size=48, intermediate_size=128, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return Student(LlamaForCausalLM(config), tokenizer)


def _arms(
    examples: list[Example], teacher: Teacher, steps: int
) -> tuple[dict[str, Callable[[], float]], dict[str, float]]:
    tokenizer, elicited = teacher.tokenizer(), {}
    data: dict[str, Any] = {"text": examples, "beside": examples}
    for name, elicit, knobs in (
        ("top_k 64", feature.top_k, {"k": 64}),
        ("samples, 50 draws", feature.sampled_tokens, {"draws": 50}),
        ("hidden states, bfloat16", feature.hidden_states, {"dtype": "bfloat16"}),
    ):
        began = time.process_time()
        data[name] = list(elicit(examples, teacher, **knobs))
        elicited[name] = round(time.process_time() - began, 2)

    def arm(name: str) -> Callable[[], float]:
        beside = "teacher" if name == "beside" else None
        objective = supervised.cross_entropy if name == "text" else divergence.forward_kl
        term = Term("loss", objective, "rows", teacher=beside)

        def run() -> float:
            student = _student(tokenizer)
            began = time.process_time()
            with tempfile.TemporaryDirectory() as out:
                arguments = {"max_steps": steps, "per_device_train_batch_size": BATCH, "save_steps": 10**6}
                teachers = {"teacher": teacher} if beside else {}
                train(
                    student,
                    [term],
                    {"rows": data[name]},
                    teachers=teachers,
                    arguments=arguments,
                    out=Path(out),
                    seed=SEED,
                )
            return time.process_time() - began

        return run

    return {name: arm(name) for name in data}, elicited


def _trl(examples: list[Example], folder: Path, tokenizer: Any, steps: int) -> dict[str, Callable[[], float]]:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    own = AutoTokenizer.from_pretrained(folder)
    own.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    own.pad_token = own.pad_token or own.eos_token
    rows = Dataset.from_list(
        [
            {"messages": [{"role": "user", "content": "."}, {"role": "assistant", "content": one.response}]}
            for one in examples
        ]
    )

    def run() -> float:
        student = _student(tokenizer).model
        teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with tempfile.TemporaryDirectory() as out:
            args = GKDConfig(
                out, lmbda=0.0, beta=0.0, temperature=1.0, use_cpu=True, bf16=False, gradient_checkpointing=False,
                max_length=512, per_device_train_batch_size=BATCH, max_steps=steps, report_to="none", save_strategy="no",
                logging_steps=10**6, disable_tqdm=True, seed=SEED,
            )  # fmt: skip
            trainer = GKDTrainer(
                model=student, teacher_model=teacher, args=args, train_dataset=rows, processing_class=own
            )
            began = time.process_time()
            trainer.train()
            return time.process_time() - began

    return {"TRL GKDTrainer, lmbda 0": run}


if __name__ == "__main__":
    sys.exit(main())
