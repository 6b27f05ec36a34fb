"""A student whose weights are shared between processes (FSDP2) learns what a whole one does. P28."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stillhouse.train.student import load_student, save_student

sys.path.insert(0, str(Path(__file__).parent))
from shard_worker import arrays, loss_of
from train_helpers import make_examples

WORKER = str(Path(__file__).parent / "shard_worker.py")


@pytest.mark.slow
def test_two_processes_that_share_the_weights_have_the_gradients_of_one(student, teacher, tmp_path):
    folder = save_student(student, tmp_path / "base")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, WORKER, str(folder), str(tmp_path / "result.pt")]
    started = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    deadline = time.monotonic() + 240
    assert [process.wait(timeout=deadline - time.monotonic()) for process in started] == [0, 0]
    found = torch.load(tmp_path / "result.pt", weights_only=True)
    whole, examples = load_student(folder), make_examples(4)
    count = int(arrays(whole.tokenizer, examples)[2].sum())
    loss = loss_of(whole.model, teacher.model, whole.tokenizer, examples, count)
    loss.backward()
    assert found["split"] > 10
    assert found["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    gradients = {name: parameter.grad for name, parameter in whole.model.named_parameters()}
    assert gradients.keys() == found["gradients"].keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-4, atol=1e-6)
