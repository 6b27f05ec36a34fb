"""A training in a process of its own, for the tests that kill it or start two of it.

worker.py FOLDER OUT RESULT SETTING=NUMBER ...: trains the student in FOLDER, and says each step as it is done.
"""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from train_helpers import WhiteBox, make_examples, make_model

from stillhouse.objectives import divergence, supervised
from stillhouse.train.student import load_student, save_student
from stillhouse.train.trainer import Rollouts, Term, Trained, train

SETTINGS = {"learning_rate": 0.5, "optim": "sgd", "lr_scheduler_type": "constant", "logging_steps": 1}
TERMS = [
    Term("supervised.cross_entropy", supervised.cross_entropy, "x"),
    Term("divergence.forward_kl", divergence.forward_kl, "rollouts", teacher="t"),
]


def work(folder: str | Path, out: Path, result: Path, settings: dict[str, int]) -> Trained:
    torch.set_num_threads(1)
    student = load_student(folder)
    teacher = WhiteBox(make_model(student.tokenizer, seed=1), student.tokenizer)
    done = train(
        student, TERMS, {"x": make_examples(16)}, teachers={"t": teacher}, arguments=SETTINGS | settings, out=Path(out),
        seed=0, rollouts=Rollouts("x", max_new_tokens=6), on_progress=lambda row: print(row["step"], flush=True),
    )  # fmt: skip
    if int(os.environ.get("RANK", 0)) == 0:
        save_student(student, result)
    return done


if __name__ == "__main__":
    pairs = [setting.split("=") for setting in sys.argv[4:]]
    work(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), {name: int(value) for name, value in pairs})
