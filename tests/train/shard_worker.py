"""One of two processes that share a student by FSDP2: shard_worker.py FOLDER RESULT, with RANK and the rest in the environment.

Each reads its half of four examples, and the first writes the loss and the whole gradients.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).parent))
from train_helpers import make_examples, make_model

from stillhouse.kernels.beliefs import Dense
from stillhouse.objectives import divergence
from stillhouse.render import render
from stillhouse.train.forward import show
from stillhouse.train.student import load_student


def arrays(tokenizer, examples):
    """ids, positions and targets of examples, each in a row of its own."""
    rows = [render(tokenizer, example.prompt, example.response) for example in examples]
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
    target = torch.zeros_like(ids, dtype=torch.bool)
    for at, row in enumerate(rows):
        target[at, row.start - 1 : len(row.ids) - 1] = True
    return ids, torch.arange(width).expand_as(ids), target


def loss_of(student, teacher, tokenizer, examples, count):
    """Sum over the targets of the examples, divided by `count`."""
    given = arrays(tokenizer, examples)
    with torch.no_grad():
        beliefs = Dense(show(teacher, *given).logits_NV)
    logits_NV = show(student, *given).logits_NV
    return divergence.forward_kl(logits_NV, beliefs, torch.ones(beliefs.positions)) / count


def main(folder, result):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    student = load_student(folder)
    teacher = make_model(student.tokenizer, seed=1)
    mesh = init_device_mesh("cpu", (world,))
    for layer in student.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(student.model, mesh=mesh)
    examples = make_examples(4)
    count = int(arrays(student.tokenizer, examples)[2].sum())
    # the processes' gradients are averaged, and the count is that of all of them
    loss = loss_of(student.model, teacher, student.tokenizer, examples[rank::world], count) * world
    loss.backward()
    whole = {name: parameter.grad.full_tensor() for name, parameter in student.model.named_parameters()}
    split = [
        name for name, parameter in student.model.named_parameters() if parameter.to_local().shape != parameter.shape
    ]
    total = loss.detach() / world
    dist.all_reduce(total)
    if rank == 0:
        torch.save({"loss": total, "gradients": whole, "split": len(split)}, result)
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main(sys.argv[1], sys.argv[2])
