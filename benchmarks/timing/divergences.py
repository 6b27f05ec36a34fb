"""The contestants of `divergence_fused.py`, one to a process: `python -m timing.divergences JOB` serves its questions.

Says "ready" once its inputs are made and its result is compared with the plain float64 form; then answers "time" with
wall and processor seconds of one call, and "memory" with the growth of the resident peak, in MB.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from timing.record import forget_the_peak, memory

BETA = {"forward_kl": 0.0, "reverse_kl": 1.0, "jensen_shannon": 0.5}


def serve(job: dict[str, Any]) -> None:
    torch.set_num_threads(job["threads"])
    i = inputs(job)
    try:
        loss_of = globals()[job["who"]](job, i, i["mask"].sum(), BETA[job["divergence"]])
    except ImportError:
        say(available=False)
        return

    def step() -> Any:
        i["student"].grad = i["student_head"].grad = None
        loss = loss_of()
        if loss is not None:
            loss.backward()
        return loss

    say(available=True, error=error_of(job, i, step) if job["reference"] and job["who"] != "products" else {})
    for line in sys.stdin:
        if line.strip() == "time":
            wall, busy = time.perf_counter(), time.process_time()
            step()
            say(value=[time.perf_counter() - wall, time.process_time() - busy])
        else:
            forget_the_peak()
            before = memory("VmRSS")
            step()
            say(value=memory("VmHWM") - before)


def say(**message: Any) -> None:
    print("@" + json.dumps(message), flush=True)


def inputs(job: dict[str, Any]) -> dict[str, Any]:
    positions, vocabulary, student, teacher = job["sizes"]
    g = torch.Generator().manual_seed(job["seed"])
    dtype = getattr(torch, job["dtype"])

    def normal(rows: int, width: int, scale: float = 1.0) -> Any:
        return (scale * torch.randn(rows, width, generator=g)).to(dtype)

    return {
        "student": normal(positions, student).requires_grad_(),
        "student_head": normal(vocabulary, student, 2 / student**0.5).requires_grad_(),
        "teacher": normal(positions, teacher),
        "teacher_head": normal(vocabulary, teacher, 2 / teacher**0.5),
        "mask": torch.rand(positions, generator=g) < 0.5,
    }


def still(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float) -> Any:
    from stillhouse.kernels.beliefs import Dense
    from stillhouse.kernels.fused import Projected
    from stillhouse.objectives import divergence

    function, weight = getattr(divergence, job["divergence"]), i["mask"] / count
    teacher = Dense(Projected(i["teacher"], i["teacher_head"]))
    return lambda: function(Projected(i["student"], i["student_head"]), teacher, weight)


def naive(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float) -> Any:
    """Unmasked positions only, log_softmax and the plain formula, differentiated by autograd."""
    rows = i["mask"].nonzero().squeeze(-1)

    def loss() -> Any:
        log_q = (i["student"][rows] @ i["student_head"].T).float().log_softmax(-1)
        with torch.no_grad():
            log_p = (i["teacher"][rows] @ i["teacher_head"].T).float().log_softmax(-1)
        if job["divergence"] == "forward_kl":  # the library's own, which keeps less than the formula does
            return torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="sum") / count
        return plain(job["divergence"], log_p, log_q) / count

    return loss


def trl(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float) -> Any:
    from trl.experimental.gkd import GKDTrainer

    labels = torch.where(i["mask"], 0, -100)[None]

    def loss() -> Any:
        student = (i["student"] @ i["student_head"].T)[None]
        with torch.no_grad():
            teacher = (i["teacher"] @ i["teacher_head"].T)[None]
        return GKDTrainer.generalized_jsd_loss(student, teacher, labels=labels, beta=beta)

    return loss


def trl_kernel(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float) -> Any:
    from trl.trainer.distillation_trainer import _chunked_divergence_loss as chunked

    hidden, heads = (i["student"][None], i["teacher"][None]), (i["student_head"], i["teacher_head"])
    return lambda: chunked(*hidden, *heads, i["mask"][None], beta)[0]


def liger_256(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float) -> Any:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    function = LigerFusedLinearJSDLoss(0.0, 1.0, beta=beta, compiled=False, chunk_size=256)
    labels = torch.where(i["mask"], 0, -100)
    return lambda: function(i["student"], i["student_head"], i["teacher"], i["teacher_head"], labels)


def products(job: dict[str, Any], i: dict[str, Any], count: Any, beta: float) -> Any:
    """A floor: torch's four products with the heads at the unmasked positions and nothing else."""
    rows = i["mask"].nonzero().squeeze(-1)
    student, teacher = i["student"].detach()[rows], i["teacher"][rows]
    head, teacher_head = i["student_head"].detach(), i["teacher_head"]
    head_gradient = torch.zeros_like(head)

    def loss() -> None:
        for start in range(0, len(rows), 256):
            part = slice(start, start + 256)
            logits = student[part] @ head.T
            teacher[part] @ teacher_head.T
            logits @ head
            head_gradient.addmm_(logits.T, student[part])

    return loss


def error_of(job: dict[str, Any], i: dict[str, Any], step: Any) -> dict[str, float]:
    """Relative errors of loss and gradients."""
    loss = step().detach()
    got = {"loss": loss, "hidden_gradient": i["student"].grad, "head_gradient": i["student_head"].grad}
    exact = torch.load(job["reference"], weights_only=True)
    errors = {name: ((got[name].double() - exact[name]).norm() / exact[name].norm()).item() for name in got}
    i["student"].grad = i["student_head"].grad = None
    return errors


def write_reference(job: dict[str, Any], path: Path) -> None:
    """Loss and gradients of the plain form in float64, a few positions at a time."""
    torch.set_num_threads(job["threads"])
    i = inputs(job)
    student = i["student"].detach().double()
    head = i["student_head"].detach().double().requires_grad_()
    teacher_head, total, back = (
        i["teacher_head"].double(),
        torch.zeros((), dtype=torch.float64),
        torch.zeros_like(student),
    )
    for rows in i["mask"].nonzero().squeeze(-1).split(128):
        leaf = student[rows].requires_grad_()
        log_p = (i["teacher"][rows].double() @ teacher_head.T).log_softmax(-1)
        part = plain(job["divergence"], log_p, (leaf @ head.T).log_softmax(-1)) / i["mask"].sum()
        part.backward()
        total += part.detach()
        back[rows] = leaf.grad
    torch.save({"loss": total, "hidden_gradient": back, "head_gradient": head.grad}, path)


def plain(divergence: str, log_p: Any, log_q: Any) -> Any:
    if divergence == "forward_kl":
        return (log_p.exp() * (log_p - log_q)).sum()
    if divergence == "reverse_kl":
        return (log_q.exp() * (log_q - log_p)).sum()
    log_m = ((log_p.exp() + log_q.exp()) / 2).log()
    return 0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["who"] == "reference":
        write_reference(given, Path(given["reference"]))
    else:
        serve(given)
