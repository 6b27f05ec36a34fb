"""Trainings in processes of their own: killed in the middle, and shared between two."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stillhouse.train.student import save_student

sys.path.insert(0, str(Path(__file__).parent))
from train_worker import work

WORKER = str(Path(__file__).parent / "train_worker.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def base(student, tmp_path):
    return save_student(student, tmp_path / "base")


def start(folder, out, result, settings, **environment):
    words = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, WORKER, str(folder), str(out), str(result), *words]
    return subprocess.Popen(command, env=ENVIRONMENT | environment, stdout=subprocess.PIPE, text=True)


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(base, tmp_path):
    """kill -9 between two checkpoints; the weights are the same to the bit, and so are the losses told."""
    settings = {"max_steps": 16, "save_steps": 5, "per_device_train_batch_size": 4, "warmup_steps": 3}
    whole = work(base, tmp_path / "a", tmp_path / "whole", settings)
    with start(base, tmp_path / "b", tmp_path / "rest", settings) as process:
        for line in process.stdout:
            if int(line) == 8:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    kept = sorted(folder.name for folder in (tmp_path / "b").glob("checkpoint-*"))
    assert kept in (["checkpoint-5"], ["checkpoint-10"], ["checkpoint-10", "checkpoint-5"])
    rest = work(base, tmp_path / "b", tmp_path / "rest", settings)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "rest")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["loss"] for row in rest.history] == [row["loss"] for row in whole.history]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(base, tmp_path):
    """P28: two gloo processes under torchrun with batches of 2 and an accumulation of 2, against one with a batch of 8."""
    one = work(base, tmp_path / "a", tmp_path / "one", {"max_steps": 2, "per_device_train_batch_size": 8})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    settings = ["max_steps=2", "per_device_train_batch_size=2", "gradient_accumulation_steps=2"]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}"]
    command = [sys.executable, *launcher, WORKER, str(base), str(tmp_path / "b"), str(tmp_path / "two"), *settings]
    done = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, timeout=240)
    assert done.returncode == 0
    assert done.stdout.split() == ["1", "2"]
    first, second, before = weights(tmp_path / "one"), weights(tmp_path / "two"), weights(base)
    moved = max(float((first[name] - before[name]).abs().max()) for name in first)
    apart = max(float((first[name] - second[name]).abs().max()) for name in first)
    assert moved > 1e-3
    assert apart < 1e-4 * moved
    told = json.loads((tmp_path / "b" / "checkpoint-2" / "stillhouse.json").read_text())
    assert told["target_tokens"] == one.target_tokens
    for row, other in zip(one.history, told["history"]):
        assert other["loss"] == pytest.approx(row["loss"], rel=1e-4)
        assert other["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-3)
