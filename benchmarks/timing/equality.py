"""Before trainers are timed: their losses are the same number with the same gradient on one batch."""

import json
from pathlib import Path

import torch

from timing.training import BETA, TEMPLATE_ANSWER, Teacher

TOLERANCE = 1e-4


def same_loss(folder: Path, divergence: str) -> dict[str, float]:
    """Ours through hidden states and TRL's from logits, on eight rows. Ends the process where they differ."""
    from transformers import AutoModelForCausalLM
    from trl.experimental.gkd import GKDTrainer

    from stillhouse.objectives import divergence as divergences
    from stillhouse.train.forward import show

    teacher, student = Teacher(folder / "teacher"), AutoModelForCausalLM.from_pretrained(folder / "student")
    rows = json.loads((folder / "rows.json").read_text())["held_out"][:8]
    tokenizer = teacher.tokenizer()
    ids = [tokenizer(TEMPLATE_ANSWER.format(**row), add_special_tokens=False)["input_ids"] for row in rows]
    start = [row.index(tokenizer.convert_tokens_to_ids("<assistant>")) for row in ids]
    ids_RC, target_RC = torch.zeros(2, len(ids), max(map(len, ids)), dtype=torch.long)
    for row, (one, at) in enumerate(zip(ids, start)):
        ids_RC[row, : len(one)] = torch.tensor(one)
        target_RC[row, at : len(one) - 1] = 1
    with torch.no_grad():
        logits_RCV = teacher.module()(input_ids=ids_RC).logits
    found = []
    for ours in (True, False):
        student.zero_grad()
        if ours:
            marked_RC = target_RC.bool()
            position_RC = torch.arange(ids_RC.shape[1]).expand_as(ids_RC)
            said = show(student, ids_RC, position_RC, marked_RC, fused=True).logits_NV
            weight_N = torch.ones(int(marked_RC.sum()))
            loss = getattr(divergences, divergence)(said, divergences.Dense(logits_RCV[marked_RC]), weight_N) / len(
                weight_N
            )
        else:
            labels_RC = target_RC.where(target_RC > 0, torch.full_like(target_RC, -100))
            loss = GKDTrainer.generalized_jsd_loss(
                student(input_ids=ids_RC).logits, logits_RCV, labels=labels_RC, beta=BETA[divergence]
            )
        loss.backward()
        found.append((float(loss.detach()), torch.cat([weight.grad.flatten() for weight in student.parameters()])))
    (mine, mine_gradient), (theirs, their_gradient) = found
    apart = float((mine_gradient - their_gradient).norm() / their_gradient.norm())
    if not (abs(mine - theirs) <= TOLERANCE * abs(theirs) and apart <= TOLERANCE):
        raise SystemExit(f"the losses differ: {mine} and {theirs}, gradients by {apart:.1e}")
    return {"ours": mine, "trl": theirs, "gradients_apart": apart}
