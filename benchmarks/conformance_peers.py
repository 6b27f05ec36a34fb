"""The conformance kit (`stillhouse.testing.conformance`) run on this library and on the losses of others, as installed.

    pip install --no-deps --target PEERS liger-kernel==0.8.5 torchtune==0.6.1 nvidia-modelopt==0.47.0 ms-swift==4.6.0
    PYTHONPATH=PEERS python benchmarks/conformance_peers.py

Prints a table and writes `results/conformance_peers.json`. What is not installed is left out. Each wrapper gives an
implementation what it asks for and no more: where it cannot be told the window's count of targets, it divides by its own.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from timing.record import RESULTS, about, write

from stillhouse.kernels.beliefs import Dense, Sampled, TopK
from stillhouse.objectives import divergence
from stillhouse.testing.conformance import Subject, examine, table
from stillhouse.testing.formulas import FORMULAS

SEED = 0


def main() -> int:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    reports = {}
    for make in (stillhouse, trl, liger, torchtune, modelopt, swift):
        try:
            subjects = make()
        except (ImportError, FileNotFoundError) as missing:
            print(f"{make.__name__}: left out, {missing}", file=sys.stderr)
            continue
        for subject in subjects:
            reports[subject.name] = examine(subject)
    for line in table(reports):
        print(line)
    packages = ("torch", "trl", "liger-kernel", "torchtune", "nvidia-modelopt", "ms-swift")
    result = about(
        "conformance of distillation losses", threads=1, seed=SEED, forced=True, packages=packages,
        paths=["src/stillhouse/testing", "benchmarks/conformance_peers.py"],
    )  # fmt: skip
    findings = {name: [asdict(finding) for finding in report] for name, report in reports.items()}
    write(RESULTS / "conformance_peers.json", {**result, "findings": findings})
    return 0


def _labels(mask: Any) -> Any:
    return torch.where(mask, 0, -100)


def stillhouse() -> list[Subject]:
    def subject(name: str, function: Callable, **more: Any) -> Subject:
        return Subject(
            f"still {name}",
            lambda s, t, m, *, temperature, count: function(s, Dense(t), m.float(), temperature=temperature) / count,
            FORMULAS[name],
            vocabulary_aware=lambda s, t, m, v: function(s, Dense(t, vocabulary=v), m.float()),
            **more,
        )

    def mixture(share: float) -> Callable:
        return lambda s, t, m, *, temperature, count: (
            divergence.generalised_jensen_shannon(s, Dense(t), m.float(), teacher_weight=share) / count
        )

    return [
        subject(
            "forward_kl",
            divergence.forward_kl,
            forward_kl=True,
            top_k=lambda s, ids, lp, m: divergence.forward_kl(s, TopK(ids, lp), m.float()) / m.sum(),
            sampled=lambda s, ids, c, m: divergence.forward_kl(s, Sampled(ids, c), m.float()) / m.sum(),
        ),
        subject("jensen_shannon", divergence.jensen_shannon, mixture=mixture),
    ]


def trl() -> list[Subject]:
    from trl.experimental.gkd import GKDTrainer
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    def gkd(beta: float) -> Callable:
        return lambda s, t, m, *, temperature, count: GKDTrainer.generalized_jsd_loss(
            s, t, labels=_labels(m), beta=beta, temperature=temperature, num_items_in_batch=count
        )

    def kernel(beta: float) -> Callable:
        def loss(s: Any, t: Any, m: Any, *, temperature: float, count: int) -> Any:
            student_head, teacher_head = (torch.eye(x.shape[-1], dtype=x.dtype) for x in (s, t))
            return _chunked_divergence_loss(
                s,
                t,
                student_head,
                teacher_head,
                m,
                beta,
                num_items_in_batch=torch.tensor(count),
                temperature=temperature,
            )[0]

        return loss

    return [
        Subject("trl gkd fkl", gkd(0.0), FORMULAS["forward_kl"], forward_kl=True),
        Subject("trl gkd jsd", gkd(0.5), FORMULAS["jensen_shannon"], mixture=gkd),
        Subject("trl kernel fkl", kernel(0.0), FORMULAS["forward_kl"], forward_kl=True),
    ]


def liger() -> list[Subject]:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    def fused(beta: float) -> Callable:
        def loss(s: Any, t: Any, m: Any, *, temperature: float, count: int) -> Any:
            function = LigerFusedLinearJSDLoss(
                0.0, 1.0, beta=beta, temperature=temperature, compiled=False, chunk_size=256
            )
            student, teacher = (x.reshape(-1, x.shape[-1]) for x in (s, t))
            heads = [torch.eye(x.shape[-1], dtype=x.dtype) for x in (student, teacher)]
            return function(student, heads[0], teacher, heads[1], _labels(m).reshape(-1))

        return loss

    return [
        Subject("liger fkl", fused(0.0), FORMULAS["forward_kl"], forward_kl=True),
        Subject("liger jsd", fused(0.5), FORMULAS["jensen_shannon"], mixture=fused),
    ]


def torchtune() -> list[Subject]:
    losses = _single_file("torchtune", "modules/loss/kd_losses.py")

    def plain(kind: str) -> Callable:
        return lambda s, t, m, *, temperature, count: getattr(losses, kind)()(s, t, _labels(m))

    return [
        Subject(
            "torchtune fkl", plain("ForwardKLLoss"), FORMULAS["forward_kl"], forward_kl=True, has_temperature=False
        ),
        Subject("torchtune rkl", plain("ReverseKLLoss"), FORMULAS["reverse_kl"], has_temperature=False),
    ]


def modelopt() -> list[Subject]:
    losses = _single_file("modelopt", "torch/distill/losses.py")

    def loss(s: Any, t: Any, m: Any, *, temperature: float, count: int) -> Any:
        per_token = losses.LogitsDistillationLoss(temperature=temperature, reduction="none")(s, t)
        return (per_token * m).sum() / count

    return [Subject("modelopt fkl", loss, FORMULAS["forward_kl"], forward_kl=True)]


def swift() -> list[Subject]:
    losses = _single_file("swift", "rlhf_trainers/gkd_loss.py")

    def gkd(beta: float) -> Callable:
        def loss(s: Any, t: Any, m: Any, *, temperature: float, count: int) -> Any:
            total, _ = losses.gkd_loss(s, losses.TeacherOutput(full_logits=t), _labels(m), beta, temperature)
            return total / count

        return loss

    def top_k(s: Any, ids: Any, logprobs: Any, m: Any) -> Any:
        teacher = losses.TeacherOutput(topk_logprobs=logprobs, topk_indices=ids)
        total, count = losses.gkd_loss(s, teacher, _labels(m), 0.0, 1.0)
        return total / count

    return [
        Subject("swift fkl", gkd(0.0), FORMULAS["forward_kl"], forward_kl=True, top_k=top_k),
        Subject("swift jsd", gkd(0.5), FORMULAS["jensen_shannon"], mixture=gkd),
    ]


def _single_file(package: str, path: str) -> Any:
    """One file of a package that cannot, or need not, be imported whole."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{package} is not installed")
    spec = importlib.util.spec_from_file_location(f"peer_{package}", Path(found.submodule_search_locations[0]) / path)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
