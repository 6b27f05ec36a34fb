"""Trains one model on pools of batches, with a checkpoint after every pool it is time for.

Shapes: B sequences, T positions, H hidden, N tokens to be predicted, V vocabulary.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tools.pocket.batches import Batch, Source
from tools.pocket.model import save

USUAL_WEIGHT = 500.0  # of a batch of solutions


@dataclass(frozen=True)
class Plan:
    pools: int
    batch_tokens: int
    learning_rate: float
    batches_per_step: int = 1  # a batch is of one length and so of few skills: a step wants several
    warmup_steps: int = 200
    save_seconds: float = 300.0


def rate(plan: Plan, progress: float, step: int) -> float:
    """Warm-up by steps, then a straight line to nought."""
    return plan.learning_rate * min(1.0, (step + 1) / plan.warmup_steps) * (1.0 - progress)


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """The head runs only where something is predicted: most positions are prompt.

    Divided by a constant, not by the batch's own count: batches are of one length and so of few skills, and a mean would
    let a batch of one-word verdicts move the weights as far as a batch of solutions.
    """
    weight_BT = batch.weight_BT[:, 1:]
    with torch.autocast("cpu", torch.bfloat16):
        hidden_BTH = model.model(batch.ids_BT[:, :-1]).last_hidden_state
        logits_NV = model.lm_head(hidden_BTH[weight_BT > 0])
    loss_N = cross_entropy(logits_NV.float(), batch.ids_BT[:, 1:][weight_BT > 0], reduction="none")
    return (loss_N * weight_BT[weight_BT > 0]).sum() / USUAL_WEIGHT


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    source: Source,
    plan: Plan,
    *,
    state: Path,
    folder: Path,
) -> dict[str, float]:
    """Resumes from `state` when it is there; writes `folder` every `save_seconds` and at the end."""
    optimizer = make_optimizer(model, plan)
    done = {"pool": 0, "step": 0, "tokens": 0, "seconds": 0.0}
    if state.exists():
        saved = torch.load(state)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["done"]
    last = time.monotonic()
    for pool in range(done["pool"], plan.pools):
        began = time.monotonic()
        loss = train_pool(model, optimizer, source, plan, pool, done)
        done["seconds"] += time.monotonic() - began
        done["pool"] = pool + 1
        print(
            f"pool {pool + 1}/{plan.pools} step {done['step']} tokens {done['tokens']:,} loss {loss:.4f}"
            f" seconds {done['seconds']:.0f}",
            flush=True,
        )
        if time.monotonic() - last > plan.save_seconds or done["pool"] == plan.pools:
            checkpoint(model, optimizer, done, state)
            save(model, tokenizer, folder)
            last = time.monotonic()
    return done


def make_optimizer(model: LlamaForCausalLM, plan: Plan) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    gains = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.95))


def train_pool(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, source: Source, plan: Plan, pool: int, done: dict
) -> float:
    """One pass over the pool; counts steps and tokens in `done`, gives the mean loss."""
    batches = list(source.batches(pool, plan.batch_tokens))
    total = 0.0
    for number, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rate(plan, (pool + number / len(batches)) / plan.pools, done["step"])
        loss = loss_of(model, batch)
        (loss / plan.batches_per_step).backward()
        total += loss.item()
        done["tokens"] += batch.ids_BT.numel()
        if (number + 1) % plan.batches_per_step == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done["step"] += 1
    return total / len(batches)


def checkpoint(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, done: dict, state: Path) -> None:
    fresh = state.with_suffix(".new")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "done": done}, fresh)
    os.replace(fresh, state)
